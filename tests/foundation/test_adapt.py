"""What an adapted foundation says that it has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morphogen.data.phantoms import phantom_dataset
from morphogen.foundation.adapt import note_training


def test_what_the_foundation_saw_before_stays_in_its_card(tmp_path: Path) -> None:
    data = phantom_dataset(tmp_path, "mucosa", 3, 32)
    before = {"training_ids": ["old", data.ids[0]], "phashes": ["0123456789abcdef"]}
    card: dict[str, Any] = {"sets": {data.name: dict(before), "other": {"training_ids": ["x"], "phashes": []}}}
    note_training(card, data)
    found = card["sets"][data.name]
    assert found["training_ids"] == ["old", *data.ids]
    assert found["phashes"][0] == before["phashes"][0]
    assert len(found["phashes"]) == 4
    assert card["sets"]["other"] == {"training_ids": ["x"], "phashes": []}
    once = {key: list(values) for key, values in found.items()}
    note_training(card, data)
    assert card["sets"][data.name] == once
