"""``morphogen train``, ``predict`` and ``eval classes`` of a classifier, in process."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.data.split import take_validation
from morphogen.metrics.classification import classification_scores

QUICK = ["--resolution", "16", "--max-train-steps", "2", "--train-batch-size", "4"]


def folder(path: Path, n: int = 30) -> Path:
    """Skin phantoms of three classes, without masks."""
    phantom_dataset(path, "skin", n, 24, seed=0)
    shutil.rmtree(path / "masks")
    return path


def relabel(data: Path, **labels: str) -> None:
    """Other classes for some ids, by the numbers of their rows."""
    lines = (data / "records.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    for key, label in labels.items():
        rows[int(key[1:])]["class"] = label
    with (data / "records.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data, and the run of a classifier on them."""
    root = tmp_path_factory.mktemp("classifier")
    data = folder(root / "data")
    words = ["train", "small", str(data), "--out", str(root / "run"), *QUICK, "--class-balance", "0.5"]
    assert main([*words, "--json", str(root / "note.json")]) == 0
    return data, root / "run"


def test_training_takes_every_class_for_both_parts(trained: tuple[Path, Path]) -> None:
    data, run = trained
    note = json.loads((run.parent / "note.json").read_text())
    assert (note["kind"], note["n_train"] + note["n_val"]) == ("classifier", 30)
    assert len(note["classes"]) == 3
    with (run / "final" / "predictions.csv").open() as file:
        validated = [row["class"] for row in csv.DictReader(file)]
    total = [record.label for record in read_dataset(data)]
    for name, n in note["classes"].items():
        assert 0 < validated.count(name) == total.count(name) - n
    assert (run / "last" / "model.safetensors").is_file()


def test_predictions_are_those_of_the_run(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    note = tmp_path / "note.json"
    words = ["predict", str(run), str(data), "--out", str(tmp_path / "out")]
    for _ in range(2):
        assert main([*words, "--json", str(note)]) == 0
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    result = json.loads(note.read_text())
    assert [row["id"] for row in rows] == list(read_dataset(data).ids)
    assert sum(result["predicted"].values()) == len(rows) == result["n"]
    for row in rows:
        p = {name: float(row[f"p({name})"]) for name in result["classes"]}
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(p, key=p.__getitem__)
    assert main([*words[:-1], str(tmp_path)]) == 2


def test_scores_and_their_table_agree(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = trained
    note, table = tmp_path / "note.json", tmp_path / "images.csv"
    assert main(["eval", "classes", str(run), str(data), "--out", str(table), "--json", str(note)]) == 0
    found = json.loads(note.read_text())
    with table.open() as file:
        rows = list(csv.DictReader(file))
    classes = found["classes"]
    p = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
    truth = np.array([classes.index(row["class"]) for row in rows])
    expected = classification_scores(p, truth, classes)
    for name, metric in found["metrics"].items():
        assert metric["value"] == pytest.approx(expected[name], abs=0.02 if name == "auc" else 1e-4)  # the table rounds
        assert metric["ci95"][0] <= metric["value"] <= metric["ci95"][1] or name == "ece"
    assert found["confusion"] == expected["confusion"]
    assert all(row["recall_ci95"] for row in found["per_class"].values())


def test_a_stated_test_part_alone_is_scored_and_none_of_it_trained_on(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    data = shutil.copytree(trained[0], tmp_path / "data")
    rows = (data / "records.csv").read_text().splitlines()
    parts = ["split", *("test" if i % 3 == 0 else "train" for i in range(len(rows) - 1))]
    (data / "records.csv").write_text("\n".join(f"{row},{part}" for row, part in zip(rows, parts, strict=True)) + "\n")
    note = tmp_path / "note.json"
    assert main(["eval", "classes", str(trained[1]), str(data), "--json", str(note)]) == 0
    assert json.loads(note.read_text())["n"] == 10
    assert main(["train", "small", str(data), "--out", str(tmp_path / "run"), *QUICK, "--json", str(note)]) == 0
    assert json.loads(note.read_text())["n_train"] + json.loads(note.read_text())["n_val"] == 20


def test_validation_by_class_never_parts_a_subject(tmp_path: Path) -> None:
    phantom_dataset(tmp_path / "data", "skin", 40, 16, seed=1, subjects=12)
    data = read_dataset(tmp_path / "data")
    train, val = (data.select(ids) for ids in take_validation(data, data.ids, seed=3, by_class=True))
    assert {r.subject for r in train}.isdisjoint(r.subject for r in val)
    assert {r.label for r in val} == {r.label for r in train} == {r.label for r in data}
    assert len(train) + len(val) == 40


class TestBadInput:
    def test_data_without_classes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = folder(tmp_path / "data", 6)
        (data / "records.csv").unlink()
        assert main(["train", "small", str(data), "--out", str(tmp_path / "run")]) == 2
        assert "states no classes; give them in the column class" in line(capsys)
        assert not (tmp_path / "run").exists()

    def test_a_class_with_one_image(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = folder(tmp_path / "data")
        relabel(data, r4="mole")
        assert main(["train", "small", str(data), "--out", str(tmp_path / "run")]) == 2
        assert "is of class 'mole', too few to learn and to validate" in line(capsys)
        assert not (tmp_path / "run").exists()

    def test_images_without_a_class_among_others(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = folder(tmp_path / "data")
        relabel(data, r4="", r5="")
        assert main(["train", "small", str(data), "--out", str(tmp_path / "run")]) == 2
        assert "2 of 30 records have no class" in line(capsys)

    def test_an_unknown_class_at_eval(
        self, trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = shutil.copytree(trained[0], tmp_path / "data")
        relabel(data, r4="mole")
        assert main(["eval", "classes", str(trained[1]), str(data)]) == 2
        assert "is of class 'mole', and the classifier knows" in line(capsys)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["train", "small", "DATA", "--out", "NEW", "--encoder", "lite0"], "--encoder: small has no such option"),
            (["train", "small", "DATA", "--out", "NEW", "--mask-values", "0=0,255=1"], "looks at no masks"),
            (["train", "convnext", "DATA", "--out", "NEW", "--resolution", "50"], "multiples of 32 px"),
            (["train", "small", "DATA", "--out", "NEW", "--class-balance", "2"], "--class-balance 2"),
            (["predict", "RUN", "DATA", "--out", "NEW", "--probabilities"], "--probabilities: is of segmenters"),
            (["eval", "classes", "DATA", "DATA"], "holds no finished classifier"),
        ],
    )
    def test_options(
        self,
        trained: tuple[Path, Path],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        words: list[str],
        said: str,
    ) -> None:
        places = {"DATA": str(trained[0]), "RUN": str(trained[1]), "NEW": str(tmp_path / "new")}
        assert main([places.get(word, word) for word in words]) == 2
        assert said in line(capsys)
        assert not (tmp_path / "new").exists()
