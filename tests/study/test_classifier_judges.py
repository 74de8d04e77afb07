"""Classifiers as judges: what they train on, what their cells hold, and what a study of them says."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.records import Dataset, Record
from morphogen.errors import InputError
from morphogen.metrics.classification import classification_scores
from morphogen.study.cells import JudgeRun, Tools
from morphogen.study.gate_judges import gate_classifier
from morphogen.study.oversample import oversampled
from morphogen.study.plan import trainings
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import prepare, run_study

Make = Callable[..., StudyConfig]
CLASSES = ("benign keratosis", "melanocytic nevus", "melanoma")
ARMS = ("real", "real-geo", "oversampled", "syn-geo", "duplicated", "synthetic-only")
pytestmark = pytest.mark.usefixtures("without_inception")


class QuickNetworks:
    """Stand in for segmenters and classifiers; these say of the mean brightness what class an image is of."""

    def __init__(self) -> None:
        self.jobs: list[JudgeRun] = []

    @property
    def tools(self) -> Tools:
        return Tools(self._train, self._load)

    def _train(self, job: JudgeRun) -> Path:
        self.jobs.append(job)
        job.out.mkdir(parents=True, exist_ok=True)
        return job.out

    def _load(self, run: Path, device: str) -> Any:
        return _classify if ".small." in run.name else _segment

    def named(self, start: str) -> list[JudgeRun]:
        return [job for job in self.jobs if job.out.name.startswith(start)]


def _segment(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [(image[..., 0] < 120).astype(np.int64) for image in images]


def _classify(images: Sequence[np.ndarray]) -> list[dict[str, float]]:
    return [dict(zip(CLASSES, _probabilities(image), strict=True)) for image in images]


def _probabilities(image: np.ndarray) -> list[float]:
    first, second = (0.5 * float(image[..., channel].mean()) / 255 for channel in (0, 2))
    return [first, second, 1 - first - second]


@pytest.fixture
def networks() -> QuickNetworks:
    return QuickNetworks()


@pytest.fixture(scope="module")
def skin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images of 12 subjects and three classes."""
    folder = tmp_path_factory.mktemp("skin") / "data"
    phantom_dataset(folder, "skin", 48, 24, seed=0, subjects=12)
    return folder


@pytest.fixture
def make(make_config: Make, skin: Path) -> Make:
    def made(**options: Any) -> StudyConfig:
        return make_config(**{"data": skin, "annotated": None, "judges": ("small", "unet"), **options})

    return made


def test_a_study_of_both_kinds_of_judges(make: Make, networks: QuickNetworks) -> None:
    config = make(arms=ARMS)
    found = run_study(config, networks.tools)
    bench = prepare(config)
    for repetition in bench.splits.repetitions:
        cell = json.loads((config.out / f"cells/oversampled.small.{repetition.label}.nall.test.json").read_text())
        assert set(cell["scores"]) == set(repetition.test)
        for record in bench.dataset.select(repetition.test):
            row = cell["scores"][record.id]
            assert (row["subject"], row["class"]) == (record.subject, record.label)
            assert list(row["p"]) == list(CLASSES)
            assert sum(row["p"].values()) == pytest.approx(1, abs=1e-5)
    rows = [c["scores"] for c in found["cells"] if (c["arm"], c["judge"]) == ("real", "small")]
    pooled = [row for some in rows for row in some.values()]
    p = np.array([[row["p"][name] for name in CLASSES] for row in pooled])
    expected = classification_scores(p, np.array([CLASSES.index(row["class"]) for row in pooled]), CLASSES)
    table = found["arms"]["real"]["small"]
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "auc", "ece"):
        assert table[metric]["mean"] == pytest.approx(expected[metric])
    assert table["recall/melanoma"]["mean"] == pytest.approx(expected["per_class"]["melanoma"]["recall"])
    assert found["confusion"][0]["counts"] == expected["confusion"]
    assert set(found["arms"]["real"]["unet"]) == {"dice", "iou", "hd95"}
    dice = [row["dice"] for c in found["cells"] if (c["arm"], c["judge"]) == ("syn-geo", "unet")
            for row in c["scores"].values() if row["class"] == "melanoma"]  # fmt: skip
    (row,) = (r for r in found["by_class"] if (r["arm"], r["class"]) == ("syn-geo", "melanoma"))
    assert (row["judge"], row["n_images"]) == ("unet", len(dice))
    assert row["dice"]["mean"] == pytest.approx(np.mean(dice))
    verdict = found["verdict"]
    assert (verdict["metric"], verdict["outcome"], verdict["diff"]) == ("macro_f1", "undecided", 0.0)
    assert verdict["text"].startswith("Undecided: macro-F1 is")
    assert "Balanced accuracy went from" in verdict["text"]
    page = (config.out / "report.html").read_text()
    for words in (
        "Difference in macro-F1",
        "Recall of melanoma",
        "What is taken for what",
        "Dice by class of the image",
    ):
        assert words in page


def test_every_arm_trains_alike_on_labelled_pairs(make: Make, networks: QuickNetworks) -> None:
    config = make(arms=ARMS, seeds=1)
    run_study(config, networks.tools)
    r = prepare(config).splits.repetitions[0]
    jobs = {job.out.name.partition(".")[0]: job for job in networks.jobs if job.judge == "small"}
    assert set(jobs) == set(ARMS)
    assert {(job.steps, job.batch, job.seed, tuple(job.recipe["classes"])) for job in jobs.values()} == {
        (2, 16, 0, CLASSES)
    }
    assert {name for name, job in jobs.items() if job.augmentation == "none"} == {"real"}
    labels = {name: [record.label for source in job.train for record in source.dataset] for name, job in jobs.items()}
    assert labels["synthetic-only"] == labels["real"]  # painted from the masks of these
    assert len(labels["oversampled"]) == len(labels["syn-geo"]) == len(labels["duplicated"]) == 2 * len(r.train)
    sizes = Counter(labels["oversampled"]).values()
    assert max(sizes) - min(sizes) <= max(1, max(Counter(labels["real"]).values()) - 2 * len(r.train) // 3)
    segmenter = next(job for job in networks.named("oversampled.unet"))
    assert [source.dataset.ids for source in segmenter.train] == [s.dataset.ids for s in jobs["oversampled"].train]


def test_oversampling_evens_out_the_classes_with_whole_turns() -> None:
    labels = ["a"] * 6 + ["b"] * 3 + ["c"]
    data = Dataset("d", Path("d"), tuple(Record(f"{i}", Path("x.png"), label=name) for i, name in enumerate(labels)))
    found = oversampled(data, 17, seed=1)
    assert found.records[:10] == data.records
    assert Counter(record.label for record in found) == {"a": 6, "b": 6, "c": 5}
    assert sorted(record.id for record in found.records[10:] if record.label == "b") == ["6~2", "7~2", "8~2"]
    assert [record.id for record in found.records[10:] if record.label == "c"] == ["9~2", "9~3", "9~4", "9~5"]
    assert Counter(record.label for record in oversampled(data, 21, seed=1)) == {"a": 7, "b": 7, "c": 7}
    assert oversampled(data, 17, seed=1) == found


def test_the_gate_drops_what_is_not_of_the_class_that_was_asked_for(make: Make, networks: QuickNetworks) -> None:
    config = make(
        arms=("real-geo", "oversampled", "syn-geo"), gates=("class-agreement",), seeds=1, judges=("unet",)
    )  # fmt: skip
    found = run_study(config, networks.tools)
    r = prepare(config).splits.repetitions[0]
    (job,) = networks.named("gate.")
    assert (job.judge, job.seed, job.recipe) == ("small", 2000, {"classes": CLASSES, "class_balance": 1.0})
    assert job.train[0].dataset.ids == r.train
    assert not len(job.validation)
    gates = found["audit"]["fold0"]["gates"]
    rows = [json.loads(line) for line in (config.out / "synthetic/fold0/manifest.jsonl").read_text().splitlines()]
    labels = {record.id: record.label for record in prepare(config).dataset}
    for row in rows:
        assert bool(row["dropped"]) == (row["gates"]["probability"] < 0.3)
    expected = {
        name: Counter(bool(row["dropped"]) for row in rows if labels[row["source_mask"]] == name) for name in CLASSES
    }
    assert gates["accepted"] == sum(n[False] for n in expected.values())
    for arm in ("oversampled", "syn-geo"):  # of one size, whatever the gates took
        (job,) = networks.named(f"{arm}.unet")
        assert sum(map(len, job.train)) == len(r.train) + gates["accepted"]
    for name, counts in expected.items():
        row = gates["by_class"][name]
        assert (row["n"], row["accepted"]) == (counts.total(), counts[False])
        assert row["reasons"].get("class-agreement", 0) == counts[True]
    assert gates["classifier"] == {"name": "small", "seed": 2000}
    assert "The same by the class that was asked for" in (config.out / "report.html").read_text()


def test_the_gate_classifier_is_another_one_than_the_judge(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.metrics import weights

    monkeypatch.setattr(weights, "available", lambda name: True)
    assert gate_classifier(make(judges=("unet",))) == "small"
    assert gate_classifier(make(judges=("unet", "small"), resolution=64)) == "lite0"
    assert gate_classifier(make(judges=("small",), resolution=40)) == "small"
    assert gate_classifier(make(judges=("resnet50+weights=none",), resolution=64)) == "small"


def test_an_arm_with_a_segmenter_of_its_own_leaves_classifiers_out(make: Make) -> None:
    bench = prepare(make(arms=("real-geo", "features"), judges=("unet", "small"), seeds=1, resolution=64))
    plan = trainings(bench.splits, bench.config.arms, bench.config.judges, ("test",))
    assert [(t.arm, t.judge) for t in plan] == [("real-geo", "unet"), ("real-geo", "small"), ("features", "unet")]


def test_a_classifier_is_trained_and_scored(make: Make) -> None:
    config = make(arms=("real-geo",), seeds=1, judges=("small",), folds=2, resolution=32)
    found = run_study(config)
    assert 0 <= found["arms"]["real-geo"]["small"]["macro_f1"]["mean"] <= 1
    run = config.out / "runs/real-geo.small.fold0.nall"
    assert json.loads((run / "final/config.json").read_text())["classes"] == list(CLASSES)
    assert found["protocol"]["judges"]["small"] is not None
    page = (config.out / "report.html").read_text()
    assert "The classifier to use" in page
    assert "IMAGES --out PREDICTIONS" in page
    assert main(["predict", str(run), str(config.data), "--out", str(config.out.parent / "out")]) == 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"arms": ("features",), "judges": ("small",)}, "small among --judges only classify; add a segmenter"),
            ({"recipe": "published"}, "small among --judges has none"),
            ({"judges": ("smal",)}, "did you mean small"),
            ({"judges": ("small+deep=1",)}, "deep"),
            ({"judges": ("convnext+weights=none",), "resolution": 40}, "takes multiples of 32 px"),
        ],
    )
    def test_what_a_classifier_cannot_do(self, make: Make, options: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            prepare(make(**options))

    @pytest.mark.parametrize(
        "options",
        [
            {"judges": ("small",)},
            {"judges": ("unet",), "arms": ("oversampled",)},
            {"judges": ("unet",), "gates": ("class-agreement",)},
        ],
    )
    def test_images_without_classes(self, make: Make, skin: Path, tmp_path: Path, options: dict[str, Any]) -> None:
        data = shutil.copytree(skin, tmp_path / "data")
        rows = [line.split(",") for line in (data / "records.csv").read_text().splitlines()]
        (data / "records.csv").write_text("".join(f"{row[0]},{row[1]}\n" for row in rows))
        config = make(data=data, **options)
        with pytest.raises(InputError, match="have no class") as caught:
            prepare(config)
        assert str(caught.value).startswith("--")
        assert not config.out.exists()

    def test_a_class_that_a_part_lacks(self, make: Make, skin: Path, tmp_path: Path) -> None:
        data = shutil.copytree(skin, tmp_path / "data")
        lines = (data / "records.csv").read_text().splitlines()
        first = lines[1].split(",")
        lines[1] = ",".join([*first[:2], "mole", *first[3:]])
        (data / "records.csv").write_text("\n".join(lines) + "\n")
        with pytest.raises(InputError, match=r"the (training|test) part of fold\d holds no image of class 'mole'"):
            prepare(make(data=data))

    def test_a_further_test_set_of_other_classes(self, make: Make, tmp_path: Path) -> None:
        phantom_dataset(tmp_path / "far", "mucosa", 3, 24, seed=9)
        with pytest.raises(InputError, match="is of class 'polyp', which is none of"):
            prepare(make(test=(f"far={tmp_path / 'far'}",)))
        prepare(make(test=(f"far={tmp_path / 'far'}",), judges=("unet",)))
