"""Every script of benchmarks/ starts: what it imports is there."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_says_what_it_does(script: Path) -> None:
    ended = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=120)
    if "No module named 'playwright'" in ended.stderr:
        pytest.skip("no playwright, with which the explorer is timed")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage:")
