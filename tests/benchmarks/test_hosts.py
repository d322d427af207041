"""The table of hosts and masks: every command is done once, with the options of its recipe, and the numbers are the runs'."""

import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "hosts", raising=False)
    monkeypatch.delitem(sys.modules, "pretraining", raising=False)
    return importlib.import_module("hosts")


def leave_behind(arguments: tuple[str, ...]) -> None:
    """What a command would have left in its folder."""
    out = Path(arguments[-1])
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps({"command": shlex.join(["evomask", *arguments])}))
    if arguments[0] == "pretrain":
        evolved = "evolved" in arguments
        more = {"depth": 1.0, "groups": 64.0} if evolved else {}
        rows = [
            {"epoch": epoch, "loss": 1.0 - 0.25 * epoch} | {k: v + 3 * epoch for k, v in more.items()} for epoch in (0, 0, 2)
        ]
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (out / "result.json").write_text(json.dumps({"metrics": {}}))
    else:
        accuracy = 20.0 if any(word.startswith("untrained:") for word in arguments) else 32.25
        (out / "result.json").write_text(json.dumps({"metrics": {"top1": accuracy}}))


def test_every_command_is_done_once_and_the_table_is_theirs(hosts, tmp_path, monkeypatch, capsys) -> None:
    commands: list[tuple[str, ...]] = []

    def run_evomask(*arguments: str) -> None:
        commands.append(arguments)
        leave_behind(arguments)

    monkeypatch.setattr(sys.modules["pretraining"], "run_evomask", run_evomask)
    call = ["hosts.py", "--images", "photos", "--out", str(tmp_path), "--recipes", "a", "b", "--masks", "random", "evolved"]
    call += ["--pretrain=--train.epochs 3", "--of", "b", "--host.cell 8", "--evaluate=--k 5"]
    monkeypatch.setattr(sys, "argv", call)
    hosts.main()
    assert len(commands) == 2 * (2 + 2 + 1)
    pretrained = {command[1]: command for command in commands if command[0] == "pretrain" and "evolved" in command}
    assert pretrained["a"][2:-2] == ("--data.root", "photos/train", "--masking.strategy", "evolved", "--train.epochs", "3")
    assert pretrained["b"][-4:-2] == ("--host.cell", "8")
    assert all(command[-4:-2] == ("--k", "5") for command in commands if command[0] == "evaluate")
    assert [c[3] for c in commands if c[3].startswith("untrained:")] == [f"untrained:{tmp_path}/{name}-random" for name in "ab"]
    table = capsys.readouterr().out
    assert "| a | random | 1.000 | 0.500 |  |  |  | 32.2 | 20.0 | +12.2 |" in table
    assert "| b | evolved | 1.000 | 0.500 | 1.0 | 7.0 | 70.0 | 32.2 | 20.0 | +12.2 |" in table

    hosts.main()
    assert len(commands) == 10, "what is finished is left alone"
    (tmp_path / "a-random" / "result.json").unlink()
    monkeypatch.setattr(sys.modules["pretraining"], "run_evomask", lambda *arguments: commands.append(arguments))
    hosts.main()
    assert commands[10:] == [("resume", str(tmp_path / "a-random"))], "what was broken off goes on"
    monkeypatch.setattr(sys, "argv", [*call, "--pretrain=--train.epochs 4"])
    with pytest.raises(SystemExit, match=r"a-random was made by another command, .*--train\.epochs 3"):
        hosts.main()
