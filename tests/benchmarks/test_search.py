"""The benchmark of searches: that it runs, and that memory stays bounded where the database is larger."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "search.py"


def test_memory_does_not_grow_with_the_database(tmp_path: Path) -> None:
    sizes = ["--count", "40000", "--width", "1024", "--queries", "5", "--block", "512"]  # 164 MB, in blocks of 2 MB
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *sizes, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    line = next(line for line in ended.stdout.splitlines() if line.startswith("peak memory"))
    before, ranked, after = (float(word) for word in line.replace("MB:", "").split() if word.isdigit())
    assert before <= ranked <= after <= before + 80
    assert not list(tmp_path.iterdir())
