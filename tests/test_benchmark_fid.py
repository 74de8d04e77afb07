"""The benchmark of FID, at a small size: both sides agree, and its last line is the JSON that scripts read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_it_runs_and_both_sides_agree() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "fid.py"
    words = [sys.executable, str(script), "--images", "150", "--dim", "40", "--rounds", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["equal"] is True
    assert found["relative_difference"] < 1e-9
    assert {"name", "peer", "ours_s", "peer_s", "ratio"} <= set(found)
