"""``morphogen train diffcl PICTURES``: few masks, many images, any segmenter as the student."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.cli import main
from morphogen.data.images import load_rgb
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.segmenters.predictor import load_segmenter

QUICK = ["--resolution", "32", "--train-batch-size", "2", "--max-train-steps", "3"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twenty phantoms of ten subjects, of which every fifth has no mask."""
    folder = tmp_path / "data"
    phantom_dataset(folder, "mucosa", 20, 40, subjects=10)
    for mask in sorted((folder / "masks").iterdir())[::5]:
        mask.unlink()
    return folder


@pytest.fixture(autouse=True)
def random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.metrics import lite0

    monkeypatch.setattr(lite0, "lite0_encoder", lambda pretrained: lite0.Lite0Features())


def trained(data: Path, out: Path, words: str, *more: str) -> dict[str, Any]:
    note = out.with_suffix(".json")
    given = ["train", "diffcl", str(data), "--out", str(out), *QUICK, *more, "--json", str(note)]
    assert main([*given, *(["--preset", words] if words else [])]) == 0
    return dict(json.loads(note.read_text()))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["train", "diffcl", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_its_own_network_learns_from_images_without_masks(data: Path, tmp_path: Path) -> None:
    made = trained(data, tmp_path / "run", "filters=4+bank=16+voxels=32")
    assert made["kind"] == "segmenter"
    assert made["n_labelled"] + made["n_val"] == 16
    assert 0 < made["n_unlabelled"] <= 4
    config = json.loads((tmp_path / "run/final/config.json").read_text())
    assert (config["segmenter"], config["method"], config["architecture"]["filters"]) == ("diffcl", "diff-cl", 4)


def test_a_unet_is_taught_by_another_method_and_predicts(data: Path, tmp_path: Path) -> None:
    made = trained(data, tmp_path / "run", "network=unet+method=cps+labelled=5")
    assert made["n_labelled"] == 5
    assert made["n_labelled"] + made["n_val"] + made["n_unlabelled"] <= 20
    assert made["n_unlabelled"] > 4
    config = json.loads((tmp_path / "run/final/config.json").read_text())
    assert (config["segmenter"], config["method"]) == ("unet", "cps")
    images = [load_rgb(record) for record in read_dataset(data, annotated_only=True)][:2]
    labels = load_segmenter(tmp_path / "run")(images)
    assert [label.shape for label in labels] == [(40, 40)] * 2
    assert set(np.unique(labels)) <= {0, 1}
    masks = tmp_path / "masks"
    assert main(["predict", str(tmp_path / "run"), str(data), "--out", str(masks)]) == 0
    assert len(list(masks.glob("*.png"))) == 20


def test_all_masks_and_no_other_images_are_the_supervised_baseline(data: Path, tmp_path: Path) -> None:
    made = trained(data, tmp_path / "run", "network=unet+method=supervised+labelled=all", "--augmentation", "none")
    assert made["n_labelled"] + made["n_val"] == 16
    assert "pseudo" not in (tmp_path / "run/metrics.jsonl").read_text()


def test_images_of_the_validation_part_are_no_unlabelled_ones(tmp_path: Path) -> None:
    data = tmp_path / "data"
    phantom_dataset(data, "mucosa", 12, 40, subjects=6)
    table = (data / "records.csv").read_text().splitlines()
    header = table[0].split(",")
    stated = [line + "," + ("val" if i < 4 else "train") for i, line in enumerate(table[1:])]
    (data / "records.csv").write_text("\n".join([",".join([*header, "split"]), *stated]) + "\n")
    masks = sorted((data / "masks").iterdir())
    for mask in (masks[0], masks[4], masks[5]):  # of a validation image, and of two that train
        mask.unlink()
    made = trained(data, tmp_path / "run", "network=unet+method=bcp")
    assert (made["n_val"], made["n_labelled"], made["n_unlabelled"]) == (3, 6, 2)


def test_bad_words_are_one_line_each(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(data), "--out", str(tmp_path / "run"), *QUICK]
    for words, says in {
        "network=unett": "unett",
        "network=segformer": "--preset network=segformer: learns by losses of its own",
        "network=features": "--preset network=features: stands on frozen features",
        "method=mixmatch": "method mixmatch: choose diff-cl or cps",
        "labelled=99": "--preset labelled=99: the training part has ",
        "labelled=0": "--preset labelled=0: the training part has ",
        "labelled=few": "labelled takes a whole number",
        "methd=cps": "there is no option 'methd'; did you mean 'method'",
        "cps": "--preset cps: is neither option=value nor one of ",
        "patch=16": "--preset patch=: is of volumes",
        "spacing=2.5": "--preset spacing=: is of volumes",
        "tau=0": "tau 0.0: must be positive",
    }.items():
        assert says in refused(capsys, *given, "--preset", words)
    assert "sides must be multiples of 16" in refused(capsys, *given[:3], "--resolution", "40")
    assert "--scales: diffcl has no such option" in refused(capsys, *given, "--scales", "0.5")
    assert "there is no such recipe" in refused(capsys, *given, "--recipe", "best")
    whole = tmp_path / "whole"
    shutil.copytree(data, whole)
    (whole / "records.csv").unlink()
    named = {record.image.name for record in read_dataset(data, annotated_only=True)}
    for image in (whole / "images").iterdir():
        if image.name not in named:
            image.unlink()
    assert "holds no image without a mask" in refused(capsys, str(whole), *given[1:])
    bare = next(image for image in sorted((data / "images").iterdir()) if image.name not in named)
    bare.write_bytes(bare.read_bytes()[: bare.stat().st_size // 2])
    assert bare.name in refused(capsys, *given)
    assert not (tmp_path / "run").exists()
