"""The arm `features` with the package's own segmenters, from the data to the comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from morphogen.study import report, results
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import run_study
from small_foundations import small_tiny


@pytest.mark.usefixtures("without_inception")
def test_it_is_trained_scored_and_compared_with_the_real_pairs(
    make_config: Callable[..., StudyConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)
    small_tiny().save(tmp_path / "foundation")
    preset = str(tmp_path / "foundation")
    config = make_config(arms=("real-geo", "features"), preset=preset, seeds=1, train_batch_size=4)
    found = run_study(config)
    cells = {arm: json.loads((config.out / f"cells/{arm}.unet.fold0.n8.test.json").read_text()) for arm in config.arms}
    assert {cell["judge"] for cell in cells.values()} == {"unet"}
    assert set(cells["features"]["scores"]) == set(cells["real-geo"]["scores"])
    assert {(c["arm"], c["control"]) for c in found["comparisons"]} == {("features", "real-geo")}
    saved = {arm: config.out / f"runs/{arm}.unet.fold0.n8/final/config.json" for arm in config.arms}
    trained = {arm: json.loads(path.read_text()) for arm, path in saved.items()}
    assert (trained["real-geo"]["segmenter"], trained["features"]["segmenter"]) == ("unet", "features")
    assert trained["features"]["architecture"]["foundation"] == preset
