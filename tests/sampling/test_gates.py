"""Each gate rejects a planted bad sample; limits come from training images; verdicts are notes, nothing is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from morphogen.data.phantoms import phantom
from morphogen.data.records import Record
from morphogen.errors import InputError
from morphogen.sampling.gates import (
    GATES,
    RECORDED,
    SCORES,
    SEGMENTED,
    Limit,
    class_scores,
    clipped,
    colourfulness,
    dice_score,
    judge,
    overlap_scores,
    picture_scores,
    read_summary,
    recorded_scores,
    sharpness,
    write_verdicts,
)
from morphogen.sampling.jobs import Job, Pair
from morphogen.sampling.manifest import MERGED, is_whole, read_rows
from morphogen.sampling.runner import run_jobs
from morphogen.training.rng import numpy_rng


class Painter:
    """Noise from the job's seed."""

    needs = frozenset({"masks"})
    resolution = 8
    hash = "painter"

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        return [Pair(numpy_rng(job.seed).integers(0, 250, (8, 8, 3), dtype=np.uint8), job.mask) for job in jobs]


IMAGES = [phantom("mucosa", seed, 48)[0] for seed in range(60)]


def literal_laplacian(grey: np.ndarray) -> np.ndarray:
    padded = np.pad(grey, 1, mode="symmetric")
    out = np.zeros_like(grey)
    for y in range(grey.shape[0]):
        for x in range(grey.shape[1]):
            cross = padded[y, x + 1] + padded[y + 2, x + 1] + padded[y + 1, x] + padded[y + 1, x + 2]
            out[y, x] = cross - 4 * padded[y + 1, x + 1]
    return out


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = IMAGES[0]
    grey = image.astype(float) @ np.array([0.299, 0.587, 0.114])
    assert sharpness(image) == pytest.approx(literal_laplacian(grey).var())
    assert sharpness(np.full((8, 8, 3), 90, np.uint8)) == pytest.approx(0)


def test_clipped_counts_full_channels_and_black_pixels() -> None:
    image = np.full((4, 5, 3), 100, np.uint8)
    image[0, 0] = (255, 90, 90)
    image[1, 1] = 0
    image[2, 2] = (0, 0, 1)
    assert clipped(image) == pytest.approx(2 / 20)


def test_colourfulness_is_the_published_measure() -> None:
    """Opponent axes of Hasler and Suesstrunk: sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2)."""
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    r, g, b = (image[..., k].astype(float).ravel() for k in range(3))
    rg, yb = r - g, 0.5 * (r + g) - b
    deviation = (rg.var() + yb.var()) ** 0.5
    mean = (rg.mean() ** 2 + yb.mean() ** 2) ** 0.5
    assert colourfulness(image) == pytest.approx(deviation + 0.3 * mean)
    assert colourfulness(np.repeat(image[..., :1], 3, axis=2)) == 0


def test_dice_is_the_mean_over_foreground_classes() -> None:
    mask = np.array([[0, 1, 1], [0, 2, 2]])
    label = np.array([[0, 1, 0], [0, 2, 2]])
    assert dice_score(label, mask, 3) == pytest.approx((2 / 3 + 1) / 2)
    assert dice_score(np.zeros_like(mask), mask, 3) == 0


def test_limits_are_percentiles_of_what_they_are_given() -> None:
    values = np.linspace(3, 9, 25)
    assert Limit.of("sharpness", values) == Limit("sharpness", "blur", np.percentile(values, 1), None, (1, None), 25)
    colour = Limit.of("colourfulness", values)
    assert (colour.low, colour.high) == (np.percentile(values, 1) - 1, np.percentile(values, 99) + 1)
    assert Limit.of("dice", values).low == np.percentile(values, 10)
    with pytest.raises(InputError, match="no training images"):
        Limit.of("dice", [])


def test_a_limit_holds_at_its_ends_and_slack_forgives_what_cannot_be_seen() -> None:
    none_clipped = Limit.of("clipped", np.zeros(9))
    assert none_clipped.passes(0.009)
    assert not none_clipped.passes(0.02)
    grey = Limit.of("colourfulness", np.zeros(9))
    assert grey.passes(0.8)
    assert not grey.passes(3)
    copies = Limit.of_copies(4)
    assert copies.passes(1.0)
    assert not copies.passes(0.999)


BAD = {
    "blur": lambda image: gaussian_filter(image, (2, 2, 0)),
    "saturation": lambda image: np.clip((image - 90.0) * 3 + 90, 0, 255).astype(np.uint8),
    "pale": lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_planted_bad_picture_is_rejected_and_new_good_ones_pass(kind: str) -> None:
    gate = "saturation" if kind == "pale" else kind
    limits = [Limit.of(name, values) for name, values in picture_scores(IMAGES[:40], [gate]).items()]
    shown = [*IMAGES[40:], *(BAD[kind](image) for image in IMAGES[:6])]
    ids = [f"good{i}" for i in range(20)] + [f"bad{i}" for i in range(6)]
    verdicts = judge([gate], limits, ids, picture_scores(shown, [gate]), ["r"])
    assert all(verdicts.dropped[f"bad{i}"] == [gate] for i in range(6))
    assert sum(bool(verdicts.dropped[f"good{i}"]) for i in range(20)) <= 3


def test_only_the_scores_of_the_gates_are_taken() -> None:
    assert set(picture_scores(IMAGES[:1], ["saturation", "copies"])) == {"clipped", "colourfulness"}
    assert picture_scores(iter(IMAGES[:1]), ["adherence"]) == {}
    noted = {"drawn", "untouched", "area", "ambiguous"}
    assert set(GATES) == {"adherence", "agreement", "copies", "blur", "saturation", "class-agreement", *noted}


def test_all_gates_that_failed_are_named_in_their_order() -> None:
    limits = [Limit("dice", "adherence", 0.5, None, (10, None), 4), Limit.of_copies(4)]
    scores = {"dice": [0.9, 0.1, 0.1], "nearness": [2.0, 3.0, 0.2]}
    verdicts = judge(("copies", "adherence"), limits, ["a", "b", "c"], scores, ["r1", "r0"])
    assert verdicts.dropped == {"a": [], "b": ["adherence"], "c": ["copies", "adherence"]}
    assert verdicts.kept == ["a"]
    summary = verdicts.summary()
    assert (summary["accepted"], summary["rejected"]) == (1, 2)
    assert summary["reasons"] == {"copies": 1, "adherence": 2}
    assert summary["training"] == hashlib.sha256(b"r0\nr1").hexdigest()
    assert json.loads(json.dumps(summary)) == summary


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    jobs = [Job(f"j{i}", i, np.zeros((8, 8), np.int64)) for i in range(4)]
    run_jobs(Painter(), jobs, tmp_path / "syn")
    return tmp_path / "syn"


def verdicts_of(folder: Path, low: float) -> None:
    limits = [Limit("sharpness", "blur", low, None, (1, None), 9)]
    write_verdicts(
        folder, judge(["blur"], limits, [f"j{i}" for i in range(4)], {"sharpness": [1, 2, 3, 4.00000049]}, ["r"])
    )


def test_verdicts_are_noted_and_replaced_and_nothing_is_lost(sampled: Path) -> None:
    before = {path.name: path.read_bytes() for path in (sampled / "images").iterdir()}
    rows = read_rows(sampled)
    verdicts_of(sampled, 2.5)
    noted = read_rows(sampled)
    assert [noted[f"j{i}"]["dropped"] for i in range(4)] == [["blur"], ["blur"], [], []]
    assert noted["j3"]["gates"] == {"sharpness": 4.0}
    assert all({k: v for k, v in noted[i].items() if k not in ("gates", "dropped")} == rows[i] for i in rows)
    assert read_summary(sampled)["accepted"] == 2  # type: ignore[index]
    assert is_whole(sampled)
    verdicts_of(sampled, 1.5)
    assert [read_rows(sampled)[f"j{i}"]["dropped"] for i in range(4)] == [["blur"], [], [], []]
    assert {path.name: path.read_bytes() for path in (sampled / "images").iterdir()} == before


def test_sampling_goes_on_in_a_judged_folder_and_keeps_the_verdicts(sampled: Path) -> None:
    verdicts_of(sampled, 2.5)
    manifest = (sampled / MERGED).read_bytes()
    (sampled / "images" / "j0.png").unlink()
    assert run_jobs(Painter(), [Job(f"j{i}", i, np.zeros((8, 8), np.int64)) for i in range(4)], sampled).made == 1
    assert (sampled / MERGED).read_bytes() == manifest


def test_verdicts_need_a_finished_manifest(sampled: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"holds no manifest.jsonl to note verdicts in"):
        verdicts_of(tmp_path / "bare", 1)
    lines = (sampled / MERGED).read_text().splitlines()
    (sampled / MERGED).write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(InputError, match="has no row for 'j2'; sample again"):
        verdicts_of(sampled, 1)
    assert read_summary(sampled) is None
    (sampled / "gates.json").write_text("{")
    assert read_summary(sampled) is None


def test_every_score_belongs_to_a_gate_and_bounds_something() -> None:
    for score in SCORES.values():
        assert score.gate in GATES
        assert {score.low, score.high, score.least, score.most} != {None}
    assert {SCORES[name].gate: name for name in (*SEGMENTED.values(), *RECORDED.values())} == SEGMENTED | RECORDED


def test_iou_is_the_mean_over_foreground_classes() -> None:
    mask = np.array([[0, 1, 1], [0, 2, 2]])
    label = np.array([[0, 1, 0], [0, 2, 2]])
    found = overlap_scores(label, mask, 3)
    assert found["iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["dice"] == dice_score(label, mask, 3)


@pytest.mark.parametrize("values", [np.linspace(0.1, 0.9, 9), np.linspace(0.7, 1.0, 9)])
def test_the_window_of_agreement_opens_at_half_or_where_the_segmenter_itself_is_worse(values: np.ndarray) -> None:
    limit = Limit.of("iou", values)
    assert (limit.low, limit.high) == (min(0.5, float(np.percentile(values, 10))), 0.95)
    assert limit.passes(0.95)
    assert not limit.passes(0.951)
    assert not limit.passes(limit.low - 1e-9)


def test_something_was_drawn_and_nothing_was_touched() -> None:
    drawn, outside = Limit.fixed("drawn"), Limit.fixed("outside")
    assert [drawn.passes(value) for value in (float("nan"), 0.2, 1.0, 1.001, 8.0)] == [False, False, False, True, True]
    assert [outside.passes(value) for value in (0.0, 1.0, 0.004)] == [True, False, False]
    verdicts = judge(
        ("drawn", "untouched"), [drawn, outside], ["a", "b"], {"drawn": [3.0, 1.0], "outside": [1, 0]}, ["r"]
    )
    assert verdicts.dropped == {"a": ["untouched"], "b": ["drawn"]}
    assert json.loads(json.dumps(verdicts.summary()))["limits"][0]["n"] == 0


def test_masks_that_a_generator_made_are_neither_tiny_nor_huge_nor_unclear() -> None:
    area, ambiguous = Limit.fixed("area"), Limit.fixed("ambiguous")
    assert [area.passes(v) for v in (0.0, 0.0099, 0.01, 0.85, 0.8501)] == [False, False, True, True, False]
    assert [ambiguous.passes(v) for v in (0.0, 0.15, 0.151, 7.0)] == [True, True, False, False]
    scores = {"area": [0.2, 0.0, 0.5], "ambiguous": [0.1, 0.0, 0.9]}
    verdicts = judge(("area", "ambiguous"), [area, ambiguous], ["a", "b", "c"], scores, ["r"])
    assert verdicts.dropped == {"a": [], "b": ["area"], "c": ["ambiguous"]}
    assert verdicts.summary()["reasons"] == {"area": 1, "ambiguous": 1}


def test_recorded_scores_are_those_of_the_manifest_and_must_be_there(tmp_path: Path) -> None:
    rows = {"a": {"origin": {"drawn": 2.5, "outside": 0}}, "b": {"origin": {"outside": 1}}, "c": {}}
    assert recorded_scores(rows, ["b", "a"], ["untouched", "blur"], tmp_path) == {"outside": [1.0, 0.0]}
    assert recorded_scores(rows, ["c"], ["blur"], tmp_path) == {}
    for id_ in ("b", "c", "unknown"):
        with pytest.raises(InputError, match=rf"--gates drawn: .*: {id_} states no 'drawn' .*; leave that gate out"):
            recorded_scores(rows, [id_], ["drawn"], tmp_path)
    with pytest.raises(InputError, match=r"a states no 'ambiguous' .* as generators that make their own masks do"):
        recorded_scores(rows, ["a"], ["ambiguous"], tmp_path)
    assert recorded_scores({"a": {"origin": {"area": 0.3}}}, ["a"], ["area"], tmp_path) == {"area": [0.3]}


def test_the_class_that_was_asked_for_is_held_against_what_a_classifier_says() -> None:
    records = [Record(i, Path("x.png"), label=label) for i, label in (("a", "nevus"), ("b", "melanoma"))]
    said = [{"nevus": 0.3, "melanoma": 0.7}, {"nevus": 0.71, "melanoma": 0.29}]
    scores = class_scores(said, records, Path("syn"))
    assert scores == [0.3, 0.29]
    found = judge(["class-agreement"], [Limit.fixed("probability")], ["a", "b"], {"probability": scores}, ["t"])
    assert found.kept == ["a"]
    for label, said_of in (("mole", "is of class 'mole'"), (None, "states no class")):
        with pytest.raises(InputError, match=rf"syn: c {said_of}, and the classifier knows nevus, melanoma"):
            class_scores(said[:1], [Record("c", Path("x.png"), label=label)], Path("syn"))
