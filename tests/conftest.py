"""What all tests share: quiet, offline, one thread a worker, and the real images where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real images; tests that use it carry ``@pytest.mark.realdata``."""
    folder = os.environ.get("MORPHOGEN_DATA")
    if not folder:
        pytest.skip("MORPHOGEN_DATA is unset: no real images to read")
    return Path(folder)
