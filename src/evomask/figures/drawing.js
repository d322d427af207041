"use strict";
// What is drawn over pictures: hidden patches and groups. A grid is [rows, columns], a tree {parent, level, colour}.
const data = JSON.parse(document.getElementById("slider-data").textContent);

function drawCover(layer, masked, run) {
  const hidden = [...masked].flatMap((bit, patch) => (bit === "1" ? [patch] : []));
  layer.innerHTML = `<path fill="${run.covered}" d="${squares(hidden, run.grid)}"/>`;
}

// Returns what to say of the cut at a percentage of the tree's height.
function drawGroups(layer, tree, percent, run) {
  const height = tree.level.at(-1);
  const level = 1 + Math.floor((height * percent) / 100 + 1e-9);
  const groupOf = cut(tree, level, run.grid);
  const groups = new Map();
  groupOf.forEach((group, patch) => groups.set(group, [...(groups.get(group) ?? []), patch]));
  const fills = [...groups].map(([group, patches]) =>
    `<path fill="${run.colours[tree.colour[group]]}" fill-opacity=".55" d="${squares(patches, run.grid)}"/>`);
  layer.innerHTML = fills.join("") + `<path d="${borders(groupOf, run.grid)}" fill="none" stroke="#fff" stroke-width="1.3" ` +
    'stroke-linecap="square" shape-rendering="auto" vector-effect="non-scaling-stroke"/>';
  const largest = Math.max(...[...groups.values()].map((patches) => patches.length)) / groupOf.length;
  return `level ${level} of ${height}, ${groups.size} group${groups.size > 1 ? "s" : ""}, largest ${Math.round(100 * largest)}%`;
}

// The highest ancestor of each patch whose level is at most `level`. Parents have higher numbers than their children.
function cut(tree, level, grid) {
  const group = tree.parent.map((_, node) => node);
  for (let node = group.length - 2; node >= 0; node--) {
    const parent = tree.parent[node];
    if (tree.level[parent] <= level) group[node] = group[parent];
  }
  return group.slice(0, grid[0] * grid[1]);
}

function squares(patches, [, columns]) {
  return patches.map((patch) => `M${patch % columns} ${Math.floor(patch / columns)}h1v1h-1z`).join("");
}

function borders(groupOf, [, columns]) {
  return groupOf.map((group, patch) => {
    const x = patch % columns, y = Math.floor(patch / columns);
    const right = x + 1 < columns && groupOf[patch + 1] !== group ? `M${x + 1} ${y}v1` : "";
    const below = patch + columns < groupOf.length && groupOf[patch + columns] !== group ? `M${x} ${y + 1}h1` : "";
    return right + below;
  }).join("");
}

// Sliders by the id of their input -> a function of the position, which draws and returns what to say of it. Positions stand
// in the address, #stage=3&depth=50, so that a view can be passed on.
function startSliders(sliders) {
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
