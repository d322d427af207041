"""Which images objects are counted and identified in: COCO json files, rows of GVTBench, or the embedded scenes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evomask.data.gvtbench import is_gvtbench, read_gvtbench
from evomask.data.json_rows import read_json
from evomask.data.object_questions import Objects, coco_objects, scene_objects
from evomask.data.questions import Questions
from evomask.models.encoders import Encoder
from evomask.tasks.visual_language import VisualLanguageConfig

Ask = Callable[[Objects, bool, int], Questions]
"""(what is in images, whether to balance answers, seed) -> questions."""


@dataclass(frozen=True, kw_only=True)
class ObjectQuestionsConfig(VisualLanguageConfig):
    """Which images; and how questions about them are learnt.

    Attributes:
        train: a COCO json file, as instances_train2017.json, or one of GVTBench's layout. None: the embedded scenes.
        train_images: the folder of its images.
        val: the same of the images that are judged, as instances_val2017.json, coco_oc.json, vcr_mci.json.
        val_images: the folder of its images: val2017, vcr1images.
        balanced: leave out questions, of those made here, until a thing's name says little about the answer: none is asked for
            more often in one number than in all others together, or more often where it is than where it is not.
        crop_scale: as of other questions; but images are seen whole, since a crop may cut away what is asked for.
        as_published: leave GVTBench's questions as they are, also those whose spelling gives the answer away.
    """

    train: Path | None = None
    train_images: Path | None = None
    val: Path | None = None
    val_images: Path | None = None
    balanced: bool = True
    crop_scale: tuple[float, float] = (1.0, 1.0)
    as_published: bool = False

    def questions(self, encoder: Encoder, ask: Ask) -> tuple[Questions, Questions]:
        """To train on and to validate on.

        Raises:
            ValueError: only some of the files are given, or one cannot be used.
        """
        files = self.files("", "images")
        if not files:
            train, val = (ask(scene_objects(scenes), self.balanced, self.loop.seed) for scenes in self.embedded_scenes(encoder))
            return train, val
        train, val = (self._read(files[split], files[f"{split}_images"], encoder.in_chans, ask) for split in ("train", "val"))
        return train, val

    def _read(self, file: Path, images: Path, channels: int, ask: Ask) -> Questions:
        record = read_json(file, "COCO's json file of annotations, or one of GVTBench")
        if is_gvtbench(record):
            return read_gvtbench(file, images, channels, self.as_published)
        return ask(coco_objects(file, images, channels, record), self.balanced, self.loop.seed)
