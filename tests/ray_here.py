"""One local Ray for the tests of a module: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from morphogen.cluster import LOCAL, crew

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the extra `scale`)")
WORKERS = 2


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """This process is connected to a Ray of two workers, which `crew` then takes whatever the address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import what the tests share
        with crew(LOCAL, WORKERS):
            yield
