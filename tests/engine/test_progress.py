"""Progress goes to stderr: a bar on a terminal, plain lines elsewhere."""

import pytest

from evomask.engine import progress
from evomask.engine.progress import ProgressBar


def test_without_a_terminal_the_end_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar("training", 3)
    for done in (1, 2, 3):
        bar.update(done, f"loss {done}")
    bar.close()
    output = capsys.readouterr()
    assert output.out == "", "stdout is for results"
    assert output.err == "training 3/3  loss 3  0:00:00 left\n"


def test_a_line_now_and_then_and_only_where_there_is_something_to_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    bar = ProgressBar("training", 9)
    bar.update(1)
    bar.update(2, "loss 0.5")
    bar.update(3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("training 2/9  loss 0.5  ")
    assert lines[0].endswith(" left")


def test_on_a_terminal_a_bar_shows_count_note_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way to be told that this is a terminal
    monkeypatch.setenv("COLUMNS", "120")
    bar = ProgressBar("training", 8, done=2)
    bar.update(5, "loss 0.25")
    bar.update(6)
    bar.close()
    output = capsys.readouterr()
    assert output.out == ""
    for part in ("training", "6/8", "loss 0.25", "-:--:--"):
        assert part in output.err


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (360_000, "100:00:00")])
def test_times_are_hours_minutes_seconds(seconds: float, text: str) -> None:
    assert progress._clock(seconds) == text
