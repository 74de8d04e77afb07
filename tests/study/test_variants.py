"""Arms that share a generator and differ in how many pairs they take and how these are sampled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from morphogen.data.lesions import lesions
from morphogen.data.pairs import Pairs
from morphogen.errors import InputError
from morphogen.generators import GENERATORS, GeneratorEntry
from morphogen.sampling.plan import plan_jobs
from morphogen.study import gating, report, results
from morphogen.study.arms import OWN, Arm, Variant, arm
from morphogen.study.bench import Bench
from morphogen.study.estimate import estimate
from morphogen.study.gating import kept_pairs
from morphogen.study.generators import variants_of
from morphogen.study.plan import trainings
from morphogen.study.quality import measured_variant, variants
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare, run_study
from morphogen.study.synthesis import (
    in_order_of_plan,
    synthetic_folder,
    synthetic_pairs,
    synthetic_rows,
)

Make = Callable[..., StudyConfig]
pytestmark = pytest.mark.usefixtures("without_inception", "painter")
NONE = Variant((("text", "none"),))


def variant_of(config: StudyConfig, one: Arm) -> Variant:
    """How the pairs of an arm of one generator are sampled."""
    (found,) = variants_of(config, one)
    return found


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = frozenset({"masks", "images"})
    entry = GeneratorEntry("painter", "paints", "here", needs, "study.fake_painter")
    monkeypatch.setitem(GENERATORS, "painter", entry)


@pytest.fixture
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)


def bench_of(config: StudyConfig) -> Bench:
    bench = prepare(config)
    freeze(bench)
    return bench


def accepted(folder: Path) -> list[str]:
    """Ids that were not dropped, in the order of the plan."""
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [row["id"] for row in sorted(rows, key=lambda row: row["position"]) if not row.get("dropped")]


ARMS = ("real-geo", "syn-geo+n=4", "syn-geo+n=2", "syn-geo+n=4+text=none", "syn-geo+n=99")


def test_a_study_of_variants(
    make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    load = GeneratorEntry.load
    monkeypatch.setattr(
        GeneratorEntry, "load", lambda self, run, device="cpu": calls.append(run.name) or load(self, run)
    )
    config = make_config(generator="painter", arms=ARMS, synthetic=10, gates=("drawn", "untouched"))
    found = run_study(config, quick.tools)
    bench = prepare(config)
    assert sorted(path.name for path in (config.out / "synthetic").iterdir()) == [
        "fold0", "fold0+text=none", "fold1", "fold1+text=none",
    ]  # fmt: skip
    assert sorted(calls) == ["generator.painter.fold0"] * 2 + ["generator.painter.fold1"] * 2
    for r in bench.splits.repetitions:
        own, none = (synthetic_folder(bench, r, variant) for variant in (OWN, NONE))
        kept = accepted(own)
        assert kept == accepted(none)  # the painter forgets to draw by the seed alone
        assert 4 < len(kept) < 10
        for name, folder, n in (
            ("syn-geo+n=4", own, 4), ("syn-geo+n=2", own, 2), ("syn-geo+n=4+text=none", none, 4),
            ("syn-geo+n=99", own, len(kept)),
        ):  # fmt: skip
            job = next(job for job in quick.arm(name) if f".{r.label}." in job.out.name)
            pairs = job.train[-1]
            assert set(pairs.dataset.ids) == set(kept[:n])
            assert all(record.image.is_relative_to(folder) for record in pairs.dataset)
            cell = json.loads((config.out / "cells" / f"{name}.unet.{r.label}.n8.test.json").read_text())
            assert (cell["arm"], cell["n_synthetic"]) == (name, n)
    assert "synthetic pairs are there, not 99; all of them are taken" in capsys.readouterr().out
    assert found["verdict"]["arm"] == "syn-geo+n=4"
    assert "(syn-geo+n=4)" in found["verdict"]["text"]
    assert {c["arm"]: c["control"] for c in found["comparisons"]} == dict.fromkeys(ARMS[1:], "real-geo")
    assert {label: sorted(audit) for label, audit in found["audit"].items()} == {
        **{f"fold{k}": ["duplicates", "gates", "leakage", "memorisation"] for k in (0, 1)},
        **{f"fold{k}+text=none": ["gates"] for k in (0, 1)},
    }
    for label, audit in found["audit"].items():
        gates = audit["gates"]
        kept = accepted(config.out / "synthetic" / label)
        assert (gates["accepted"], gates["rejected"]) == (len(kept), 10 - len(kept))
        assert gates["reasons"] == {"drawn": 10 - len(kept), "untouched": 0}
    assert found["images"]["fold0+text=none"]["sampling"] == {"text": "none"}
    (sentence,) = found["protocol"]["fewer_pairs"]
    assert sentence.startswith("syn-geo+n=99: fewer pairs passed the gates or were made")
    page = (config.out / "report.html").read_text()
    for words in (sentence, "fold1+text=none", "syn-geo+n=4+text=none", "HD95 (px at native size)", "by drawn"):
        assert words in page
    jobs = len(quick.jobs)
    run_study(config, quick.tools)
    assert len(quick.jobs) == jobs


def test_pairs_have_the_size_of_the_images_and_are_the_first_ones_for_every_number(make_config: Make) -> None:
    bench = bench_of(make_config(generator="painter", arms=("syn-geo",), synthetic=9))
    r = bench.splits.repetitions[0]
    made = synthetic_pairs(bench, r)
    with Image.open(made[0].image) as image:
        assert image.size == (24, 24)
    order = in_order_of_plan(made).ids
    more = bench_of(make_config(generator="painter", arms=("syn-geo",), synthetic=14, out=bench.out.with_name("more")))
    assert in_order_of_plan(synthetic_pairs(more, r)).ids[:9] == order
    assert [row["position"] for i in order for row in synthetic_rows(bench, r) if row["id"] == i] == list(range(9))
    assert {record.origin["source_mask"] for record in made if record.origin} <= set(r.train)


def test_without_a_number_there_are_as_many_as_masks_times_per_mask(make_config: Make) -> None:
    bench = bench_of(make_config(generator="painter", arms=("syn-geo",), per_mask=2))
    r = bench.splits.repetitions[0]
    assert len(synthetic_pairs(bench, r)) == 2 * len(r.train)


def test_training_images_without_a_lesion_are_not_painted_from(
    make_config: Make, phantom_folder: Path, tmp_path: Path
) -> None:
    """`plan_into` refuses an empty mask, which here would be after the generator was trained."""
    data = shutil.copytree(phantom_folder, tmp_path / "data")
    config = make_config(generator="painter", arms=("syn-geo",), synthetic=9, data=data)
    bench = bench_of(config)
    r = bench.splits.repetitions[0]
    healthy = r.train[0]
    mask = bench.dataset.select([healthy])[0].mask
    assert mask is not None
    Image.new("L", Image.open(mask).size).save(mask)
    made = synthetic_pairs(bench, r)
    sources = {record.origin["source_mask"] for record in made if record.origin}
    assert len(made) == 9
    assert sources == set(r.train) - {healthy}


def test_other_generators_take_the_masks_in_turn(make_config: Make) -> None:
    """The pairs are those of the usual plan, in another order; a smaller number is the beginning of a larger one."""
    found = {}
    for n in (5, 8):
        bench = bench_of(make_config(arms=("syn",), synthetic=n, out=make_config().out / str(n)))
        r = bench.splits.repetitions[0]
        found[n] = in_order_of_plan(synthetic_pairs(bench, r))
    assert found[8].ids[:5] == found[5].ids
    masks = len(r.train)
    sources = [i.rpartition("_")[0] for i in found[8].ids]
    assert sorted(sources[:masks]) == sorted(r.train)
    assert sources != sorted(sources)
    assert sources[masks:] == sources[: 8 - masks]
    usual = {job.id: job for job in plan_jobs(bench.dataset.select(r.train), 2, "random", r.seed, size=16)}
    for record in found[8]:
        mask = np.array(Image.open(record.mask)) > 0
        assert np.array_equal(mask, usual[record.id].mask > 0)


def test_the_first_accepted_pairs_are_taken_in_the_order_of_the_plan(make_config: Make, quick: Any) -> None:
    bench = bench_of(make_config(generator="painter", arms=("syn-geo",), synthetic=12, gates=("drawn",)))
    r = bench.splits.repetitions[0]
    every = kept_pairs(bench, r, quick.tools)
    first = kept_pairs(bench, r, quick.tools, n=3)
    assert first.ids == tuple(sorted(first.ids))
    assert set(first.ids) == set(accepted(synthetic_folder(bench, r))[:3])
    assert set(first.ids) < set(every.ids)


def test_options_with_the_generators_own_value_share_its_folder(make_config: Make) -> None:
    config = make_config(generator="painter")
    assert variant_of(config, arm("syn-geo+text=mask+guidance=2.5")) == OWN
    assert variant_of(config, arm("syn-geo+text=none+guidance=2.5+n=3")) == NONE
    assert variant_of(config, arm("syn-geo+guidance=5")) == variant_of(config, arm("syn+guidance=5.0"))
    names = ("real", "syn-geo+n=3+text=none", "syn", "syn-geo+n=5+text=none")
    assert variants(config, names) == (NONE, OWN)


def test_images_are_measured_as_the_generator_makes_them_or_of_the_first_that_there_is(make_config: Make) -> None:
    assert measured_variant(make_config(generator="painter", arms=("syn+text=none", "syn"))) == OWN
    wrong = Variant((("text", "wrong"),))
    arms = ("real", "syn-geo+text=wrong", "syn-geo+text=none")
    assert measured_variant(make_config(generator="painter", arms=arms)) == wrong
    assert measured_variant(make_config(generator="painter", arms=("real", "autoencoded"))) == OWN


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arms": ("syn-geo+txt=none",)}, "--arms syn-geo txt=none: there is no option 'txt'; did you mean 'text'?"),
        ({"arms": ("syn-geo+seed=4",)}, "there is no option 'seed'"),
        ({"arms": ("syn-geo+guidance=high",)}, "guidance=high: guidance takes a number"),
        ({"arms": ("syn-geo+text=loud",)}, "--arms syn-geo+text=loud: text loud: choose mask or none or wrong"),
        ({"arms": ("real+text=none",)}, "real has no synthetic pairs, so no options"),
        ({"arms": ("syn+n=3", "syn+n=3+text=mask")}, "are one and the same arm; leave one of them out"),
        ({"arms": ("syn-geo+text=none",), "generator": "copy-paste"}, "copy-paste has no options for sampling"),
        ({"gates": ("drawn",), "generator": "copy-paste"}, "--gates drawn: copy-paste does not paint into images"),
        ({"gates": ("area",)}, "--gates area: painter does not make masks of its own, so that its pairs state no"),
        ({"synthetic": 0}, "--synthetic 0: is too small; give at least 1"),
    ],
)
def test_wrong_options_are_one_line_and_nothing_is_written(
    make_config: Make, options: dict[str, Any], says: str
) -> None:
    config = make_config(**{"generator": "painter", **options})
    with pytest.raises(InputError) as caught:
        run_study(config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.out.exists()


def test_an_arm_that_asks_for_more_than_is_made_is_noted_in_the_plan(
    make_config: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    run_study(make_config(generator="painter", arms=("syn-geo+n=30", "syn"), synthetic=12, dry_run=True))
    printed = capsys.readouterr().out
    assert "painter, 12 synthetic pairs a repetition" in printed
    assert "note         syn-geo+n=30: 12 pairs are made, of which it takes all; give --synthetic" in printed


def test_the_price_follows_candidates_and_ways_of_sampling(make_config: Make) -> None:
    def price(*arms: str, **options: Any) -> tuple[float, float]:
        bench = prepare(make_config(generator="painter", arms=arms, seeds=1, **options))
        found = estimate(bench, trainings(bench.splits, arms, ("unet",), ("test",)))
        return found.seconds, found.disk_mb

    few, many = price("syn-geo", synthetic=10), price("syn-geo", synthetic=30)
    pair = 0.2 * (16 / 64) ** 2
    assert many[0] - few[0] == pytest.approx(20 * pair)
    assert many[1] - few[1] == pytest.approx(20 * 4 * 24 * 24 / 1e6)
    two = price("syn-geo", "syn-geo+text=none", synthetic=10)
    same = price("syn-geo", "syn-geo+n=3", synthetic=10)
    assert two[0] - same[0] == pytest.approx(10 * pair)


@pytest.mark.usefixtures("without_page")
def test_cells_of_one_repetition_are_exploratory_and_compared_on_it(make_config: Make, quick: Any) -> None:
    arms = ("real-geo", "syn-geo+n=3", "syn-geo+n=3+text=none")
    options = {"generator": "painter", "arms": arms, "synthetic": 8, "folds": 3}
    for pattern in ("real-geo.*", "syn-geo+n=3.*", "*.fold1.*"):
        found = run_study(make_config(**options, cells=pattern), quick.tools)
    rows = {c["arm"]: c for c in found["comparisons"] if c["metric"] == "dice"}
    assert rows["syn-geo+n=3"]["exploratory"] is None
    assert rows["syn-geo+n=3+text=none"]["exploratory"] == "exploratory (1 of 3 repetitions)"
    cells = {
        name: json.loads((make_config().out / "cells" / f"{name}.unet.fold1.n8.test.json").read_text())["scores"]
        for name in ("real-geo", "syn-geo+n=3+text=none")
    }
    mean = {name: np.mean([row["dice"] for row in scores.values()]) for name, scores in cells.items()}
    expected = mean["syn-geo+n=3+text=none"] - mean["real-geo"]
    assert rows["syn-geo+n=3+text=none"]["diff"] == pytest.approx(expected)
    assert "exploratory" not in found["arms"]["syn-geo+n=3"]["unet"]
    assert found["arms"]["syn-geo+n=3+text=none"]["unet"]["exploratory"] == "exploratory (1 of 3 repetitions)"
    assert len(found["missing"]) == 2
    assert "Preliminary" not in found["verdict"]["text"]


def test_lesions_are_cut_out_with_what_is_around_them(make_config: Make) -> None:
    bench = prepare(make_config())
    pairs = Pairs(bench.dataset.select(bench.dataset.ids[:3]), 16)
    found = lesions(pairs)
    assert found.shape == (3, 3, 16, 16)
    for i, crop in enumerate(found):
        image, mask = pairs[i]
        rows, columns = np.nonzero(mask)
        height, width = rows.max() + 1 - rows.min(), columns.max() + 1 - columns.min()
        size = min(16, 2 * max(height, width))
        top = int(np.clip((rows.min() + rows.max() + 1 - size) / 2, 0, 16 - size))
        left = int(np.clip((columns.min() + columns.max() + 1 - size) / 2, 0, 16 - size))
        cut = image[:, top : top + size, left : left + size]
        assert np.abs(crop.mean(axis=(1, 2)) - cut.mean(axis=(1, 2))).max() < 12


def test_copies_of_painted_lesions_are_looked_for_among_lesions(
    make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(gating, "lesions", lambda pairs: seen.append(len(pairs)) or pairs.images())
    for generator, wanted in (("painter", True), ("copy-paste", False)):
        config = make_config(generator=generator, arms=("syn",), gates=("copies",), out=make_config().out / generator)
        bench = bench_of(config)
        r = bench.splits.repetitions[0]
        gating.verdicts(bench, r, synthetic_pairs(bench, r), quick.tools)
        assert bool(seen) is wanted
        seen.clear()


def test_agreement_takes_its_window_from_held_out_training_images(make_config: Make, quick: Any) -> None:
    bench = bench_of(make_config(generator="painter", arms=("syn",), gates=("agreement", "adherence"), annotated=None))
    r = bench.splits.repetitions[0]
    found = gating.verdicts(bench, r, synthetic_pairs(bench, r), quick.tools)
    limits = {limit.score: limit for limit in found.limits}
    assert (limits["iou"].high, limits["iou"].n) == (0.95, limits["dice"].n)
    assert limits["iou"].low is not None
    assert limits["iou"].low <= 0.5
    assert found.summary()["segmenter"]["name"] == "unet"
    for row in found.scores.values():
        assert row["dice"] == pytest.approx(2 * row["iou"] / (1 + row["iou"]), abs=1e-9)
