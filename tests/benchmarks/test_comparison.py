"""How times are taken and put side by side; the clock is a fake one."""

import itertools
from importlib.metadata import version

import pytest
import torch

from evomask.benchmarks import comparison
from evomask.benchmarks.comparison import Comparison, Row, as_rows, circumstances, compare

CPU = torch.device("cpu")


def test_ratios_are_taken_within_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of each candidate in turn: first the warm-up, then two turns, of which the second is twice as slow for both.
    lasts = iter([9.0, 9.0, 1.0, 3.0, 2.0, 8.0])
    clock = itertools.accumulate(itertools.chain.from_iterable((0.0, last) for last in lasts))
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: next(clock))
    calls = []
    candidates = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    rows = compare("work", candidates, CPU, turns=2, units=10).rows
    assert calls == ["a", "b"] * 3
    assert rows[0] == Row("a", 150.0, 1.0, 1.0, 1.0)
    assert rows[1] == Row("b", 550.0, 3.5, 3.0, 4.0)


def test_a_table_shows_every_row_and_memory_where_there_is_any() -> None:
    plain = Comparison("work", [Row("a", 1, 1, 1, 1), Row("b", 2, 2, 2, 2)])
    assert plain.table().row_count == 2
    assert len(plain.table().columns) == 3
    assert len(Comparison("work", [Row("a", 1, 1, 1, 1, 512.0)]).table().columns) == 4
    assert len(Comparison("work", [Row("a", 1, 1, 1, 1), Row("b", 2, 2, 2, 2, agreement=0.5)]).table().columns) == 4
    assert len(Comparison("work", [Row("a", 1, 1, 1, 1, own_mib=1.0, share_mib=2.0)]).table().columns) == 5
    assert as_rows([plain])[1] == {
        "table": "work", "name": "b", "milliseconds": 2, "ratio": 2, "least": 2, "most": 2, "peak_mib": None, "agreement": None,
        "own_mib": None, "share_mib": None,
    }  # fmt: skip


def test_a_library_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "LIBRARIES", ("torch", "no-such-library"))
    found = circumstances()
    assert found["versions"] == {"torch": version("torch"), "no-such-library": None}
    assert found["threads"] == torch.get_num_threads()
