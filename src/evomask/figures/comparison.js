
// A run's stage whose share of its training is nearest to a given one.
function nearest(run, share) {
  const distance = (stage) => Math.abs(stage.epoch / run.epochs - share);
  return run.stages.reduce((best, each) => (distance(each) < distance(best) ? each : best));
}

function drawStage(position) {
  const share = data.positions[position];
  data.runs.forEach((run, number) => {
    const stage = nearest(run, share);
    stage.masked.forEach((masked, image) => {
      const place = `${number}-${image}`;
      const layer = document.querySelector(`[data-cover="${place}"]`);
      if (!layer) return;
      drawCover(layer, masked, run);
      const caption = document.querySelector(`[data-mask-caption="${place}"]`);
      caption.textContent = stage.depth ? `${stage.title}: level ${stage.depth[image]} of ${stage.height[image]}` : stage.title;
    });
  });
  return `${Math.round(100 * share)}% of training`;
}

function drawDepth(percent) {
  data.runs.forEach((run, number) => {
    run.trees.forEach((tree, image) => {
      const layer = document.querySelector(`[data-groups="${number}-${image}"]`);
      if (!layer) return;
      const text = drawGroups(layer, tree, percent, run);
      document.querySelector(`[data-tree-caption="${number}-${image}"]`).textContent = text;
    });
  });
  return `${percent}% of the height`;
}

if (data) startSliders({ stage: drawStage, depth: drawDepth });
