"""Studies whose generator makes its own masks: which classes its pairs have, by study and by arm."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError
from morphogen.generators import GENERATORS, GeneratorEntry
from morphogen.study import gating, quality, report, results
from morphogen.study.arms import OWN, Arm, Variant, arm
from morphogen.study.bench import Bench
from morphogen.study.estimate import SECONDS_A_PAIR, estimate
from morphogen.study.gating import kept_pairs
from morphogen.study.generators import variants_of
from morphogen.study.identity import config_hash, load_study, refuse_other_study
from morphogen.study.plan import trainings
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare, run_study
from morphogen.study.synthesis import candidates, synthetic_folder, synthetic_pairs

Make = Callable[..., StudyConfig]
pytestmark = pytest.mark.usefixtures("without_inception", "dual")
LARGEST = Variant((("balance", "largest"),))


def variant_of(config: StudyConfig, one: Arm) -> Variant:
    """How the pairs of an arm of one generator are sampled."""
    (found,) = variants_of(config, one)
    return found


@pytest.fixture
def dual(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = GeneratorEntry("dual-fake", "makes both", "here", frozenset(), "study.fake_dual")
    monkeypatch.setitem(GENERATORS, "dual-fake", entry)


@pytest.fixture(scope="module")
def classed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 phantoms of 10 subjects; three of four are nevi, in every subject."""
    folder = tmp_path_factory.mktemp("classed") / "data"
    phantom_dataset(folder, "skin", 40, 24, seed=0, subjects=10)
    with (folder / "records.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    met = Counter[str]()
    for row in rows:
        met[row["subject"]] += 1
        row["class"] = "melanoma" if met[row["subject"]] == 1 else "nevus"
    with (folder / "records.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture
def make(make_config: Make, classed_folder: Path) -> Make:
    return lambda **options: make_config(
        **{"generator": "dual-fake", "data": classed_folder, "annotated": 12, **options}
    )


def bench_of(config: StudyConfig) -> Bench:
    bench = prepare(config)
    freeze(bench)
    return bench


def real(bench: Bench) -> Counter[str | None]:
    """Classes of the first repetition's training pairs."""
    return Counter(record.label for record in bench.dataset.select(bench.splits.repetitions[0].train))


def test_pairs_follow_the_classes_of_the_training_images(make: Make) -> None:
    bench = bench_of(make(arms=("real-geo", "syn-geo")))
    repetition = bench.splits.repetitions[0]
    made = synthetic_pairs(bench, repetition)
    assert Counter(record.label for record in made) == real(bench)
    assert len(set(real(bench).values())) == 2
    for record in made:
        assert record.caption is not None
        assert record.caption.startswith(f"{record.label} ")


def test_the_images_that_are_measured_first_show_all_classes(
    make: Make, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(make(arms=("syn-geo",), per_mask=3, annotated=20))
    repetition, seen = bench.splits.repetitions[0], []
    monkeypatch.setattr(quality, "image_sets", lambda bench, r, made: seen.append(made.dataset) or {})
    monkeypatch.setattr(quality, "distances", lambda *of: {})
    monkeypatch.setattr(quality, "audits", lambda *of: {})
    quality.measure_images(bench, repetition, quick.tools)
    (made,), n = seen, len(repetition.train)
    assert len(made) == 3 * n
    assert Counter(record.label for record in made.records[:n]) == real(bench)


def test_an_arm_may_balance_the_classes(make: Make, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)
    config = make(arms=("real-geo", "syn-geo", "syn-geo+balance=largest"))
    run_study(config, quick.tools)
    bench = prepare(config)
    assert {path.name for path in (config.out / "synthetic").iterdir()} == {
        f"fold{k}{words}" for k in (0, 1) for words in ("", "+balance=largest")
    }
    counts = real(bench)
    made = synthetic_pairs(bench, bench.splits.repetitions[0], LARGEST)
    assert set((counts + Counter(record.label for record in made)).values()) == {max(counts.values())}
    trained = {job.out.name: sum(map(len, job.train)) for job in quick.jobs}
    n = len(bench.splits.repetitions[0].train)
    assert {v for k, v in trained.items() if k.startswith("syn-geo+balance=largest.") and ".fold0" in k} == {
        n + len(made)
    }
    assert len(list((config.out / "runs").glob("generator.*"))) == 2


def test_an_arm_may_lack_a_class_which_its_classifier_never_learns(make: Make) -> None:
    """The synthetic pairs of a balanced arm are of the rarer class alone."""
    arms = ("real-geo", "synthetic-only+balance=largest")
    found = run_study(make(arms=arms, judges=("small",), seeds=1, steps=20, resolution=32))
    (cell,) = (cell for cell in found["cells"] if cell["arm"] == arms[1])
    assert all(set(row["p"]) == {"melanoma", "nevus"} for row in cell["scores"].values())
    assert found["arms"][arms[1]]["small"]["recall/nevus"]["mean"] == 0


def test_gates_of_the_masks(make: Make, quick: Any) -> None:
    bench = bench_of(make(arms=("syn-geo",), synthetic=20, gates=("area", "ambiguous")))
    repetition = bench.splits.repetitions[0]
    made = synthetic_pairs(bench, repetition)
    kept = kept_pairs(bench, repetition, quick.tools)
    assert set(kept.ids) == {r.id for r in made if (r.origin or {})["origin"]["ambiguous"] < 0.15}
    assert 0 < len(kept) < len(made) == 20
    assert all(record.label for record in kept)


def test_masks_that_were_made_with_their_image_may_fit_to_the_pixel(make: Make, quick: Any) -> None:
    bench = bench_of(make(arms=("syn-geo",), gates=("agreement", "adherence"), annotated=20))
    repetition = bench.splits.repetitions[0]
    found = gating.verdicts(bench, repetition, synthetic_pairs(bench, repetition), quick.tools)
    limits = {limit.score: limit for limit in found.limits}
    assert limits["iou"].high is None
    assert limits["iou"].low is not None


def test_a_balanced_arm_takes_no_more_of_a_class_than_it_needs(
    make: Make, quick: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = bench_of(make(arms=("syn-geo",), synthetic=40, gates=("area", "ambiguous")))
    repetition, wanted = bench.splits.repetitions[0], {"melanoma": 9, "nevus": 3}
    variant = Variant((("balance", "melanoma=9,nevus=3"),))
    made = synthetic_pairs(bench, repetition, variant)
    assert Counter(r.label for r in made) == {"melanoma": 30, "nevus": 10}  # 40 candidates, as 9 to 3
    passed = {r.id for r in made if (r.origin or {})["origin"]["ambiguous"] < 0.15}
    accepted = {name: [r.id for r in made if r.label == name and r.id in passed] for name in wanted}
    kept = kept_pairs(bench, repetition, quick.tools, variant)
    assert set(kept.ids) == {i for name, n in wanted.items() for i in accepted[name][:n]}
    assert len(kept_pairs(bench, repetition, quick.tools, variant, 4)) == 4
    whole = kept_pairs(bench, repetition, quick.tools, variant, gated=False)
    assert Counter(r.label for r in whole) == wanted
    assert not {*whole.ids} <= passed
    assert set(kept_pairs(bench, repetition, quick.tools, gated=False).ids) == set(
        synthetic_pairs(bench, repetition).ids
    )
    short = {name: len(accepted[name]) for name in wanted if len(accepted[name]) < wanted[name]}
    said = capsys.readouterr().out
    assert all(f"{n} synthetic pairs of {name} are there, not {wanted[name]}" in said for name, n in short.items())
    assert len(kept) == sum(wanted.values()) - sum(wanted[name] - n for name, n in short.items())


def test_the_study_may_balance_for_all_arms(make: Make) -> None:
    config = make(arms=("syn-geo", "syn-geo+balance=none", "syn-geo+balance=nevus=2,melanoma=3"), balance="largest")
    bench = bench_of(config)
    ours, none, stated = (variant_of(bench.config, arm(name)) for name in bench.config.arms)
    assert ours == OWN == variant_of(bench.config, arm("syn-geo+balance=largest"))
    repetition = bench.splits.repetitions[0]
    counts = real(bench)
    short = max(counts.values()) - min(counts.values())
    assert [candidates(bench, repetition, v) for v in (ours, none, stated)] == [short, len(repetition.train), 5]
    assert Counter(r.label for r in synthetic_pairs(bench, repetition, stated)) == {"nevus": 2, "melanoma": 3}
    assert synthetic_folder(bench, repetition, stated).name == "fold0+balance=nevus=2,melanoma=3"


def test_balance_goes_with_the_generators_own_options(make: Make) -> None:
    config = make(arms=("syn-geo+guidance=2+balance=9",))
    variant = variant_of(config, arm(config.arms[0]))
    assert variant == Variant((("balance", "9"), ("guidance", 2.0)))
    bench = bench_of(config)
    assert len(synthetic_pairs(bench, bench.splits.repetitions[0], variant)) == candidates(
        bench, bench.splits.repetitions[0], variant
    )


def test_the_price_follows_the_budget(make: Make) -> None:
    def price(name: str) -> tuple[float, int]:
        bench = prepare(make(arms=("real-geo", name)))
        todo = [t for t in trainings(bench.splits, bench.config.arms, ("unet",), ("test",)) if t.arm == name]
        variant = variant_of(bench.config, arm(name))
        return estimate(bench, todo).seconds, sum(candidates(bench, r, variant) for r in bench.splits.repetitions)

    (own, n), (balanced, m) = price("syn-geo"), price("syn-geo+balance=100")
    assert m > n
    assert balanced - own == pytest.approx((m - n) * SECONDS_A_PAIR * (16 / 64) ** 2)


def test_what_is_no_balance_leaves_hashes_and_older_studies_as_they_were(make: Make) -> None:
    config = make(arms=("syn-geo",))
    assert config_hash(config, "s") != config_hash(replace(config, balance="largest"), "s")
    freeze(prepare(config))
    path = config.out / "study.yaml"
    assert load_study(path)["balance"] == "none"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("balance")))
    refuse_other_study(prepare(config).config)
    with pytest.raises(InputError, match="has --balance none, not largest"):
        refuse_other_study(replace(prepare(config).config, balance="largest"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"balance": "biggest"}, "--balance biggest: give none, largest, a number"),
        ({"balance": "9", "generator": "copy-paste"}, "copy-paste paints the masks of the training pairs, whatever"),
        ({"balance": "melanom=3"}, "fold0: --balance melanom: no training image is of this class; did you mean"),
        ({"balance": "2"}, "fold0: --balance 2: every class has"),
        ({"arms": ("syn-geo+balance=wart=3",)}, "fold0: --balance wart: no training image is of this class; the"),
        ({"arms": ("syn-geo+balance=some",)}, "--arms syn-geo+balance=some: balance some: give none, largest"),
        ({"arms": ("syn-geo+balance=a/b=3",)}, "'a/b=3' holds a /, and arms are names of files"),
        ({"arms": ("syn-geo", "syn-geo+balance=none")}, "are one and the same arm"),
        ({"arms": ("syn-geo", "syn-geo+gates=none")}, "are one and the same arm"),
        ({"arms": ("syn-geo+balance=9",), "generator": "copy-paste"}, "copy-paste has no options for sampling"),
        ({"arms": ("syn-geo+balance=9",), "generator": "siamese"}, "there is no option 'balance'"),
    ],
)  # fmt: skip
def test_wrong_balances_are_one_line_and_nothing_is_written(make: Make, options: dict[str, Any], says: str) -> None:
    config = make(**{"arms": ("syn-geo",), **options})
    with pytest.raises(InputError) as caught:
        run_study(config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.out.exists()


def test_images_without_classes_cannot_be_balanced(make: Make, classed_folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(classed_folder, tmp_path / "data")
    (data / "records.csv").unlink()
    with pytest.raises(InputError, match="fold0: --balance largest: the training images have no classes"):
        prepare(make(arms=("syn-geo",), balance="largest", data=data))


def test_more_pairs_than_the_budget_are_noted(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run_study(make(arms=("syn-geo+n=90+balance=largest", "syn-geo"), dry_run=True))
    printed = capsys.readouterr().out
    assert "note         syn-geo+n=90+balance=largest: " in printed
    assert "of which it takes all; balance up to more" in printed
