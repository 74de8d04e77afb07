"""What tests of segmenters on a foundation share."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_foundations import small_tiny


@pytest.fixture(scope="session")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random foundation."""
    folder = tmp_path_factory.mktemp("foundation")
    made = small_tiny()
    made.vae.register_to_config(scaling_factor=0.7)
    made.save(folder)
    return folder
