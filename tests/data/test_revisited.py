"""Ground truth of revisited Oxford and Paris: what is read of it, and pickles that would run code."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomask.data.plain_pickle import read_plain_pickle
from evomask.data.retrieval_sets import revisited, revisited_protocols
from evomask.data.revisited import GroundTruth, read_ground_truth


def content(**of_query: Any) -> dict[str, Any]:
    query = {"bbx": [1.5, 2, 30, 40.2], "easy": [0, 3], "hard": [1], "junk": [4]} | of_query
    return {"imlist": ["a", "b", "c", "d", "e"], "qimlist": ["q"], "gnd": [query]}


def write(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


class Malicious:
    """Makes a file when it is unpickled the usual way."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize(
    ("name", "counts"), [("roxford5k", (4993, {"easy": 2, "medium": 0, "hard": 0})), ("rparis6k", (6322, {"easy": 0}))]
)
def test_the_published_files_are_read(shared_data: Path, name: str, counts: tuple[int, dict[str, int]]) -> None:
    truth = read_ground_truth(shared_data / f"revisitop/gnd_{name}.pkl")
    assert (len(truth.database), len(truth.queries), len(truth.boxes)) == (counts[0], 70, 70)
    protocols = revisited_protocols(truth)
    for protocol, empty in counts[1].items():
        assert sum(len(query.positives) == 0 for query in protocols[protocol]) == empty


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    value = content()
    value["imlist"][2] = Malicious(trace)
    path = write(tmp_path / "gnd.pkl", value)
    with pytest.raises(ValueError, match=r"gnd.pkl holds more than plain values \((posix|nt).mkdir\).*refused") as caught:
        read_ground_truth(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the usual way it would have run"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_class_gets_in_whatever_the_protocol(tmp_path: Path, protocol: int) -> None:
    plain = {"a": [1, 2.5, None, True, ("b", {"c": 2**70})]}
    (tmp_path / "plain").write_bytes(pickle.dumps(plain, protocol))
    assert read_plain_pickle(tmp_path / "plain") == plain
    (tmp_path / "class").write_bytes(pickle.dumps({"a": np.arange(3)}, protocol))
    with pytest.raises(ValueError, match="more than plain values"):
        read_plain_pickle(tmp_path / "class")


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(content())[:-20], pickle.dumps([1, 2])])
def test_other_files_are_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "gnd.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=r"gnd.pkl is no (pickle|ground truth)"):
        read_ground_truth(tmp_path / "gnd.pkl")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"easy": [5]}, "beyond the 5 images"),
        ({"junk": [-1]}, "beyond the 5 images"),
        ({"bbx": [1, 2, 1, 4]}, "must have an extent"),
        ({"bbx": [1, 2]}, "not enough values"),
        ({"hard": None}, "TypeError"),
    ],
)
def test_ground_truth_that_cannot_be_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_ground_truth(write(tmp_path / "gnd.pkl", content(**change)))
    with pytest.raises(ValueError, match="there is no file"):
        read_ground_truth(tmp_path / "nowhere.pkl")


def test_protocols_by_hand() -> None:
    truth = GroundTruth(database=list("abcde"), queries=["q"], boxes=[(0, 0, 1, 1)], easy=[[0, 3]], hard=[[1]], junk=[[4]])
    found = {
        name: (sorted(query.positives.tolist()), sorted(query.junk.tolist()))
        for name, [query] in revisited_protocols(truth).items()
    }
    assert found == {"easy": ([0, 3], [1, 4]), "medium": ([0, 1, 3], [4]), "hard": ([1], [0, 3, 4])}
    [query] = revisited_protocols(truth)["medium"]
    assert [query.verdict(number) for number in range(5)] == ["right", "right", "wrong", "right", "junk"]


def test_images_that_are_missing_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "gnd.pkl", content())
    with pytest.raises(ValueError, match="there is no folder"):
        revisited(path, tmp_path / "jpg")
    (tmp_path / "jpg").mkdir()
    with pytest.raises(ValueError, match=r"gnd.pkl names 1 files that are not there, .*q.jpg for one"):
        revisited(path, tmp_path / "jpg")
