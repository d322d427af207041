
function drawStage(number) {
  const stage = data.stages[number];
  document.querySelectorAll("[data-cover]").forEach((layer, image) => drawCover(layer, stage.masked[image], data));
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
    const text = drawGroups(layer, data.trees[image], percent, data);
    document.querySelector(`[data-tree-caption="${image}"]`).textContent = text;
  });
  return `${percent}% of the height`;
}

if (data) startSliders({ stage: drawStage, depth: drawDepth });
