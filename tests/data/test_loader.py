import multiprocessing
import os
import signal

import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from evomask.data.layouts import open_images
from evomask.data.loader import in_order, load_batches
from evomask.data.pretraining import PretrainingImages
from evomask.data.sampler import StepSampler
from evomask.data.scenes import Scenes


def batches(source, workers, steps=range(6), batch_size=8, micro_batches=2):
    data = PretrainingImages(source, (32, 32), channels=3, patches=16, seed=0)
    return load_batches(data, StepSampler(len(source), batch_size, 0, steps, micro_batches=micro_batches), workers, "cpu")


def folder_with(tmp_path, whole, broken):
    for number in range(whole):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:04d}.png")
    for number in range(broken):
        (tmp_path / f"z{number}.jpg").write_text("words")
    return open_images(tmp_path)


def test_any_number_of_workers_gives_the_same_batches():
    source = Scenes(32, 20)
    alone = list(batches(source, 0))
    assert len(alone) == 12
    assert alone[0][0].shape == (4, 3, 32, 32)
    for workers in (1, 2):
        for mine, theirs in zip(alone, batches(source, workers), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_few_broken_files_are_replaced(tmp_path, workers):
    source = folder_with(tmp_path, 199, 1)
    indices = [i for _, _, part in batches(source, workers, range(25)) for i in part.tolist()]
    assert len(indices) == 200
    assert 199 not in indices


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_files_stop_the_run(tmp_path, workers):
    source = folder_with(tmp_path, 97, 3)
    with pytest.raises(ValueError, match=r"2 of 100 files cannot be read, more than 1%, .*z\d\.jpg for one: mend them"):
        list(batches(source, workers, range(12)))


def test_a_folder_of_broken_files_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"of 10 files cannot be read"):
        list(batches(folder_with(tmp_path, 0, 10), 1))


def test_a_killed_worker_is_one_clear_error():
    class Deadly(Scenes):
        def image(self, index):
            os.kill(os.getpid(), signal.SIGKILL)
            return super().image(index)

    with pytest.raises(ValueError, match=r"process that loads images died.*use fewer workers"):
        list(batches(Deadly(32, 20), 1))


def test_a_killed_worker_is_the_same_error_where_all_images_are_looked_at():
    class Deadly(TensorDataset):
        def __getitem__(self, index):
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ValueError, match=r"process that loads images died.*use fewer workers"):
        list(in_order(Deadly(torch.arange(8)), 4, workers=1))


def test_an_error_of_a_worker_is_no_death():
    class Faulty(Scenes):
        def image(self, index):
            raise RuntimeError("of a library")

    with pytest.raises(RuntimeError, match="of a library"):
        list(batches(Faulty(32, 20), 1))


def test_signals_to_the_group_do_not_end_workers_that_look_at_all_images():
    seen = []
    for batch in in_order(TensorDataset(torch.arange(64)), 4, workers=2):  # type: ignore[arg-type]
        for worker in multiprocessing.active_children() if len(seen) == 8 else []:  # both are at work
            os.kill(worker.pid, signal.SIGTERM)
        seen += batch[0].tolist()
    assert seen == list(range(64))


def test_no_worker_outlives_an_error_of_its_own():
    class Faulty(Scenes):
        def image(self, index):
            raise ArithmeticError("of a library")

    with pytest.raises(ArithmeticError) as caught:  # its traceback keeps all that was there
        list(batches(Faulty(32, 20), 1))
    assert caught.value.__traceback__ is not None
    assert multiprocessing.active_children() == []
