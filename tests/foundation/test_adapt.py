"""What an adapted foundation says that it has seen, and who adapts it where several want the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from morphogen.data.phantoms import phantom_dataset
from morphogen.foundation import adapt as adapting
from morphogen.foundation.adapt import AdaptConfig, adapted, note_training, sharing
from morphogen.foundation.model import Foundation
from small_foundations import small_tiny


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


def test_those_that_adapt_alike_share_it_and_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[Path] = []
    fit = adapting.fit
    monkeypatch.setattr(
        adapting, "fit", lambda task, loop, out, *more: stages.append(out) or fit(task, loop, out, *more)
    )
    data, source = phantom_dataset(tmp_path / "d", "mucosa", 4, 32), tmp_path / "f"
    small_tiny().save(source)

    def weights(name: str, **changes: Any) -> dict[str, torch.Tensor]:
        config = AdaptConfig(foundation=str(source), **changes)
        found = adapted(Foundation.load(source), data, config, 1, tmp_path / name / "adapted")
        return {**found.vae.state_dict(), **found.unet.state_dict()}

    alone = weights("alone")
    with sharing(tmp_path / "shared"):
        first, second, other = weights("first"), weights("second"), weights("other", seed=1)
        weights("alone")  # goes on where it was
    assert [out.parent.parent.name for out in stages] == ["alone"] * 2 + ["shared"] * 4
    assert all(torch.equal(value, first[name]) for name, value in alone.items())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    assert not (tmp_path / "first").exists()
    weights("outside")
    assert stages[-1].parent.parent.name == "outside"
