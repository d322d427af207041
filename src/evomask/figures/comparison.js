
// A run's stage whose share of training is nearest to that of the slider's position.
function nearest(stages, progress) {
  return stages.reduce((best, each) => (Math.abs(each.progress - progress) < Math.abs(best.progress - progress) ? each : best));
}

function drawStage(position) {
  const progress = data.positions[position];
  data.runs.forEach((run, number) => {
    const stage = nearest(run.stages, progress);
    stage.masked.forEach((masked, image) => {
      const place = `${number}-${image}`;
      const layer = document.querySelector(`[data-cover="${place}"]`);
      if (!layer) return;
      drawCover(layer, masked, run);
      const caption = document.querySelector(`[data-mask-caption="${place}"]`);
      caption.textContent = stage.depth ? `${stage.title}: level ${stage.depth[image]} of ${stage.height[image]}` : stage.title;
    });
  });
  return `${Math.round(100 * progress)}% of training`;
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
