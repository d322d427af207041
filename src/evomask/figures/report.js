"use strict";
// The sliders. Their positions stand in the address, #stage=3&depth=50, so that a view can be passed on.
const data = JSON.parse(document.getElementById("slider-data").textContent);

function drawStage(number) {
  const stage = data.stages[number];
  document.querySelectorAll("[data-cover]").forEach((layer, image) => {
    const hidden = [...stage.masked[image]].flatMap((bit, patch) => (bit === "1" ? [patch] : []));
    layer.innerHTML = `<path fill="${data.covered}" d="${squares(hidden)}"/>`;
  });
  document.querySelectorAll("[data-mask-caption]").forEach((caption, image) => {
    caption.textContent = stage.depth ? `cut at level ${stage.depth[image]} of ${stage.height[image]}` : "";
  });
  document.querySelectorAll("[data-restored]").forEach((picture, image) => (picture.src = stage.restored[image]));
  document.querySelectorAll('[id*="-stage-"]').forEach((line) => {
    line.classList.toggle("now", line.id.endsWith(`-stage-${number}`));
  });
  return stage.title;
}

function drawDepth(percent) {
  document.querySelectorAll("[data-groups]").forEach((layer, image) => {
    const tree = data.trees[image];
    const height = tree.level.at(-1);
    const level = 1 + Math.floor((height * percent) / 100 + 1e-9);
    const groupOf = cut(tree, level);
    const groups = new Map();
    groupOf.forEach((group, patch) => groups.set(group, [...(groups.get(group) ?? []), patch]));
    const fills = [...groups].map(
      ([group, patches]) => `<path fill="${data.colours[tree.colour[group]]}" fill-opacity=".55" d="${squares(patches)}"/>`);
    layer.innerHTML = fills.join("") + `<path d="${borders(groupOf)}" fill="none" stroke="#fff" stroke-width="1.3" ` +
      'stroke-linecap="square" shape-rendering="auto" vector-effect="non-scaling-stroke"/>';
    const largest = Math.max(...[...groups.values()].map((patches) => patches.length)) / groupOf.length;
    document.querySelector(`[data-tree-caption="${image}"]`).textContent =
      `level ${level} of ${height}, ${groups.size} group${groups.size > 1 ? "s" : ""}, largest ${Math.round(100 * largest)}%`;
  });
  return `${percent}% of the height`;
}

// The highest ancestor of each patch whose level is at most `level`. Parents have higher numbers than their children.
function cut(tree, level) {
  const group = tree.parent.map((_, node) => node);
  for (let node = group.length - 2; node >= 0; node--) {
    const parent = tree.parent[node];
    if (tree.level[parent] <= level) group[node] = group[parent];
  }
  return group.slice(0, data.grid[0] * data.grid[1]);
}

function squares(patches) {
  const columns = data.grid[1];
  return patches.map((patch) => `M${patch % columns} ${Math.floor(patch / columns)}h1v1h-1z`).join("");
}

function borders(groupOf) {
  const columns = data.grid[1];
  return groupOf.map((group, patch) => {
    const x = patch % columns, y = Math.floor(patch / columns);
    const right = x + 1 < columns && groupOf[patch + 1] !== group ? `M${x + 1} ${y}v1` : "";
    const below = patch + columns < groupOf.length && groupOf[patch + columns] !== group ? `M${x} ${y + 1}h1` : "";
    return right + below;
  }).join("");
}

if (data) {
  const sliders = { stage: drawStage, depth: drawDepth };
  const show = (name) => {
    const slider = document.getElementById(name);
    const text = sliders[name](Number(slider.value));
    slider.setAttribute("aria-valuetext", text);
    slider.parentElement.querySelector("output").textContent = text;
  };
  const readAddress = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    for (const name of Object.keys(sliders)) {
      if (wanted.has(name)) document.getElementById(name).value = wanted.get(name);
      show(name);
    }
  };
  for (const name of Object.keys(sliders)) {
    document.getElementById(name).addEventListener("input", () => {
      show(name);
      const places = Object.keys(sliders).map((each) => `${each}=${document.getElementById(each).value}`);
      history.replaceState(null, "", "#" + places.join("&"));
    });
  }
  addEventListener("hashchange", readAddress);
  readAddress();
}
