"""`morphogen audit --gates class-agreement`: a classifier says whether a pair is of the class that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from morphogen.classifiers import build, resolve
from morphogen.classifiers.predictor import load_classifier, save_classifier
from morphogen.cli.audit import Audit
from morphogen.data.images import load_rgb
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError

CLASSES = ("benign keratosis", "melanocytic nevus", "melanoma")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Synthetic and real images, and a classifier that nobody trained, which takes all of them for nevi."""
    for name, seed in (("syn", 1), ("real", 2)):
        phantom_dataset(tmp_path / name, "skin", 12, 24, seed=seed)
    (tmp_path / "run/final").mkdir(parents=True)
    net, architecture = build("small", 3), resolve("small", {})
    with torch.no_grad():
        list(net.parameters())[-1].copy_(torch.tensor([0.0, 3.0, -1.0]))
    save_classifier(tmp_path / "run/final", net, "small", architecture, CLASSES, 24)
    return tmp_path / "syn", tmp_path / "real", tmp_path / "run"


def audit(syn: Path, real: Path, **options: object) -> dict[str, object]:
    return Audit(syn=syn, real=real, features="none", gates=("class-agreement",), **options).run()["gates"]


def test_pairs_below_the_limit_are_dropped(folders: tuple[Path, Path, Path]) -> None:
    syn, real, run = folders
    data, predictor = read_dataset(syn), load_classifier(run)
    (syn / "manifest.jsonl").write_text("".join(json.dumps({"id": i, "sha256": {}}) + "\n" for i in data.ids))
    p = predictor([load_rgb(record) for record in data])
    asked = {r.id: p[k, CLASSES.index(str(r.label))] for k, r in enumerate(data)}
    assert len({bool(value < 0.3) for value in asked.values()}) == 2
    found = audit(syn, real, classifier=run, drop=True)
    assert set(found["dropped"]) == {i for i, value in asked.items() if value < 0.3}
    assert found["classifier"] == {"name": "small", "hash": predictor.hash}
    rows = [json.loads(line) for line in (syn / "manifest.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([r["gates"]["probability"] for r in rows], [asked[r["id"]] for r in rows], atol=1e-5)


def test_bad_input(folders: tuple[Path, Path, Path]) -> None:
    syn, real, run = folders
    with pytest.raises(InputError, match="goes with --classifier RUN"):
        audit(syn, real)
    lines = (syn / "records.csv").read_text().splitlines()
    name = lines[1].split(",")[0]
    (syn / "records.csv").write_text("\n".join([lines[0], f"{name},s,mole,", *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=f"{name} is of class 'mole', and the classifier knows"):
        audit(syn, real, classifier=run)
