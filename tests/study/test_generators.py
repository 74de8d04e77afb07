"""Arms with generators of their own: what is refused, what is shared, what stays as it was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morphogen.errors import InputError
from morphogen.generators import GENERATORS, GeneratorEntry
from morphogen.study import refusals as module
from morphogen.study.arms import OWN, Variant, arm
from morphogen.study.bench import Bench
from morphogen.study.cells import synthetic_part
from morphogen.study.estimate import estimate
from morphogen.study.generators import generator_config, study_of, variants_of
from morphogen.study.identity import config_hash, load_study
from morphogen.study.plan import trainings
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare, run_study
from morphogen.study.synthesis import foundations, in_order_of_plan

Make = Callable[..., StudyConfig]
pytestmark = pytest.mark.usefixtures("without_inception", "fakes")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, needs, path in (
        ("painter", frozenset({"masks", "images"}), "study.fake_painter"),
        ("dual-fake", frozenset[str](), "study.fake_dual"),
    ):
        monkeypatch.setitem(GENERATORS, name, GeneratorEntry(name, "fake", "here", needs, path))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each run of a generator was trained, and not only found."""
    counts, train = Counter[str](), GeneratorEntry.train

    def counted(self: GeneratorEntry, data: Any, config: Any, out: Path) -> Path:
        counts[out.name] += not (out / "final").exists()
        return train(self, data, config, out)

    monkeypatch.setattr(GeneratorEntry, "train", counted)
    return counts


def bench_of(config: StudyConfig) -> Bench:
    bench = prepare(config)
    freeze(bench)
    return bench


ARMS = (
    *("real-geo", "syn-geo", "syn-geo+generator=painter", "syn+generator=painter+n=2"),
    *("syn-geo+generator=painter+text=none", "syn-geo+generator=copy-paste,painter"),
)


def test_generators_stand_side_by_side_and_are_trained_once(
    make_config: Make, quick: Any, trained: Counter[str]
) -> None:
    config = make_config(arms=ARMS, gates=("drawn", "blur"), seeds=1, annotated=None)
    found = run_study(config, quick.tools)
    assert trained == {"generator.copy-paste.fold0": 1, "generator.painter.fold0": 1}
    labels = ["fold0", "fold0+generator=painter", "fold0+generator=painter+text=none"]
    assert sorted(path.name for path in (config.out / "synthetic").iterdir()) == labels
    assert sorted(path.stem for path in (config.out / "images").glob("*.json")) == labels
    assert sorted(found["images"]) == sorted(found["audit"]) == labels
    assert [found["images"][label].get("generator") for label in labels] == [None, "painter", "painter"]
    assert [found["images"][label].get("sampling") for label in labels] == [None, None, {"text": "none"}]
    assert ["adherence" in found["images"][label] for label in labels] == [True, True, False]
    assert [found["audit"][label]["gates"]["gates"] for label in labels] == [["blur"], *[["drawn", "blur"]] * 2]
    for name, n in {"syn-geo": None, "syn+generator=painter+n=2": 2}.items():
        (job,) = quick.arm(name)
        folder = config.out / "synthetic" / ("fold0+generator=painter" if n else "fold0")
        assert all(record.image.is_relative_to(folder) for record in job.train[-1].dataset)
        assert n is None or len(job.train[-1]) == n
    (both,) = quick.arm("syn-geo+generator=copy-paste,painter")
    assert [len({record.image.parents[1] for record in source.dataset}) for source in both.train[1:]] == [1, 1]
    cell = json.loads((config.out / "cells" / f"{ARMS[-1]}.unet.fold0.nall.test.json").read_text())
    assert cell["n_synthetic"] == sum(map(len, both.train[1:]))
    jobs = len(quick.jobs)
    run_study(config, quick.tools)
    assert len(quick.jobs) == jobs
    assert sum(trained.values()) == 2


def test_a_trained_generator_beside_pasted_lesions(make_config: Make, quick: Any, tmp_path: Path) -> None:
    from small_foundations import small_tiny

    small_tiny().save(tmp_path / "tiny")
    steps = "max_train_steps=1+train_batch_size=2+adapt_steps=0+sampling_steps=1+hint=plain"
    config = make_config(
        arms=("real-geo", "syn-geo", "syn-geo+generator=siamese", "semi-syn+generator=siamese+method=cps"),
        presets=(f"siamese={tmp_path / 'tiny'}+{steps}",), resolution=32, seeds=1, annotated=4,
    )  # fmt: skip
    found = run_study(config, quick.tools)
    assert found["missing"] == []
    assert list(found["generators"]) == ["copy-paste", "siamese"]
    assert [row["pairs"] for row in found["generators"].values()] == [3, 3]
    assert sorted(path.name for path in (config.out / "runs").glob("generator.*")) == [
        "generator.copy-paste.fold0", "generator.siamese.fold0",
    ]  # fmt: skip
    assert "Generators copy-paste, siamese" in (config.out / "report.html").read_text()


def test_of_two_generators_each_paints_every_other_mask(make_config: Make, quick: Any) -> None:
    name = "syn-geo+generator=copy-paste,painter"
    bench = bench_of(make_config(arms=("syn-geo", name), synthetic=7))
    r = bench.splits.repetitions[0]
    halves = synthetic_part(bench, r, quick.tools, arm(name))
    assert [len(half) for half in halves] == [4, 3]
    for i, half in enumerate(halves):
        places = [(record.origin or {})["position"] for record in in_order_of_plan(half)]
        assert places == list(range(7))[i::2]
    assert [len(some) for some in synthetic_part(bench, r, quick.tools, arm(f"{name}+n=3"))] == [2, 1]
    (whole,) = synthetic_part(bench, r, quick.tools, arm("syn-geo"))
    assert set(halves[0].ids) < set(whole.ids)


def test_the_study_of_another_generator(make_config: Make) -> None:
    arms = ("syn-geo+generator=controlnet", "syn-geo+generator=copy-paste", "syn-geo+generator=dual-fake")
    config = make_config(
        generator="siamese", preset="ablation-4+foundation=/f", arms=arms, generator_steps=9, adapt_steps=0,
        gates=("blur", "area"), prompt="a polyp",
    )  # fmt: skip
    found = study_of(config, "controlnet")
    assert (found.generator, found.preset, found.gates) == ("controlnet", "/f", ("blur",))
    settings = generator_config(found, 3)
    assert (settings.foundation, settings.resolution, settings.prompt, settings.seed) == ("/f", 16, "a polyp", 3)
    assert settings.max_train_steps == type(settings)().max_train_steps
    assert study_of(found, "controlnet") == found
    assert study_of(config, None) == study_of(config, "siamese") == replace(config, gates=("blur",))
    plain = replace(config, gates=())
    assert study_of(plain, None) is plain
    assert generator_config(study_of(config, "copy-paste"), 0) == GENERATORS["copy-paste"].configure(resolution=16)
    assert study_of(config, "dual-fake").gates == ("blur", "area")
    own = replace(config, presets=("controlnet=tiny+guidance=4+max_train_steps=7",))
    settings = generator_config(study_of(own, "controlnet"), 0)
    assert (settings.foundation, settings.guidance, settings.max_train_steps) == ("tiny", 4.0, 7)
    assert foundations(own) == ["/f", "tiny"]
    assert foundations(config) == ["/f"]


def test_presets_of_a_generator_without_foundation_name_none(make_config: Make) -> None:
    """Those of singan-seg are no foundation that the arm `autoencoded` or another generator could load."""
    arms = ("syn-geo+generator=controlnet", "autoencoded")
    config = make_config(generator="singan-seg", preset="paper+max_images=3", resolution=32, arms=arms)
    config.check()
    assert study_of(config, "controlnet").preset == "tiny"
    assert foundations(config) == ["tiny"]
    assert foundations(replace(config, generator="copy-paste", preset="/f")) == ["/f"]


def test_the_foundation_of_the_gate_segmenter_is_one_of_the_studys(make_config: Make) -> None:
    """Gates choose what the arms train on, so that it must not know test images either."""
    config = make_config(gates=("agreement",), gate_segmenter="latent")
    assert foundations(config) == ["tiny"]
    assert foundations(replace(config, gate_segmenter="unet")) == []


def test_ways_of_sampling_are_those_of_the_arms_generator(make_config: Make) -> None:
    config = make_config()
    none = Variant((("text", "none"),), "painter")
    assert variants_of(config, arm("syn-geo+generator=painter+text=none+guidance=2.5")) == (none,)
    assert variants_of(config, arm("syn-geo+generator=copy-paste")) == (OWN,)
    both = (OWN, Variant(generator="painter"))
    assert variants_of(config, arm("syn-geo+generator=copy-paste,painter")) == both
    assert variants_of(replace(config, generator="painter"), arm("syn-geo+text=none")) == (
        replace(none, generator=None),
    )


RIVAL = "syn-geo+generator=controlnet"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arms": (RIVAL,), "presets": ("controlnet",)}, "--presets controlnet: is not NAME=PRESET; write for example"),
        ({"arms": (RIVAL,), "presets": ("controlnet=a", "controlnet=b")}, "controlnet has a preset already"),
        ({"arms": (RIVAL,), "presets": ("controlnet=big",)}, "--presets controlnet: preset big: no such preset"),
        ({"arms": (RIVAL,), "presets": ("controlnet=tiny+resolution=32",)}, "work at its resolution"),
        ({"arms": (RIVAL,), "presets": ("controlnet=tiny+seed=3",)}, "those of its repetitions; leave seed out"),
        ({"arms": ("syn-geo",), "presets": ("controlnet=tiny",)}, "no arm has pairs of controlnet; leave it out"),
        ({"arms": (RIVAL,), "presets": ("copy-paste=tiny",)}, "is the study's own generator; write --preset tiny"),
        (
            {"arms": ("syn-geo+generator=painter",), "presets": ("painter=tiny",)},
            "--presets painter=tiny: painter has no presets; leave it out",
        ),
        ({"arms": (f"{RIVAL}+text=none",)}, "--arms syn-geo text=none: there is no option 'text'"),
        ({"arms": ("syn-geo", "syn-geo+generator=copy-paste")}, "are one and the same arm; leave one of them out"),
        ({"arms": ("syn-geo+generator=dual-fake+balance=all",)}, "balance"),
        ({"arms": ("syn-geo", "syn-geo+generator=painter"), "gates": ("area",)}, "--gates area: copy-paste does not"),
    ],
)  # fmt: skip
def test_wrong_generators_are_one_line_and_nothing_is_written(
    make_config: Make, options: dict[str, Any], says: str
) -> None:
    config = make_config(**options)
    with pytest.raises(InputError) as caught:
        run_study(config)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not config.out.exists()


def test_what_another_generator_refuses_is_found_before_anything_is_written(
    make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def check(self: GeneratorEntry, data: Any, config: Any, **stated: Any) -> None:
        seen.append(self.name)
        if self.name == "painter":
            raise InputError(f"{data.root}: nothing to paint into, {stated['prompt']}")

    monkeypatch.setattr(GeneratorEntry, "check", check)
    config = make_config(arms=("syn-geo", "syn-geo+generator=painter"), prompt="a polyp")
    with pytest.raises(InputError, match="nothing to paint into, a polyp"):
        run_study(config, quick.tools)
    assert seen == ["copy-paste", "painter"]
    assert not config.out.exists()


def test_a_generator_of_an_arm_must_not_know_test_images_either(
    make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(arms=("real-geo", RIVAL), seeds=1, dry_run=True)
    tested = prepare(make_config(arms=("real-geo",), seeds=1))
    card = {"sets": {tested.dataset.name: {"training_ids": [tested.splits.repetitions[0].test[0]]}}}
    monkeypatch.setattr(module, "card_of", lambda name: card)
    with pytest.raises(InputError, match=r"test images were used to train the foundation tiny"):
        run_study(config, quick.tools)


def test_hashes_of_studies_without_other_generators_stay(make_config: Make) -> None:
    plain = StudyConfig(data=Path("/d"), out=Path("/o"))
    rivals = replace(plain, arms=(RIVAL,), presets=("controlnet=tiny",))
    assert config_hash(plain, "splits") == config_hash(rivals, "splits") == "407f2da13b55"


def test_a_generator_joins_later_with_one_preset_and_cells_say_which(make_config: Make, quick: Any) -> None:
    run_study(make_config(arms=("real-geo", "syn-geo")), quick.tools)
    config = make_config(arms=("real-geo", "syn-geo+generator=painter"))
    found = run_study(config, quick.tools)
    cells = {cell["arm"]: cell for cell in found["cells"]}
    assert cells["syn-geo+generator=painter"]["presets"] == {"painter": None}
    assert "presets" not in cells["syn-geo"]
    assert found["protocol"]["settings"]["added_arms"] == ["syn-geo+generator=painter"]
    later = make_config(arms=(RIVAL,), presets=("controlnet=tiny",))
    freeze(prepare(later))
    saved = load_study(config.out / "study.yaml")
    assert (saved["arms"][-1], saved["presets"]) == (RIVAL, ["controlnet=tiny"])
    assert prepare(config).config.presets == ("controlnet=tiny",)
    with pytest.raises(InputError, match=r"the study there has --presets controlnet=tiny; use that or name another"):
        prepare(replace(later, presets=("controlnet=tiny+guidance=3",)))
    with pytest.raises(InputError, match=r"the study there has --presets controlnet=tiny; use that or name another"):
        prepare(replace(later, presets=()))
    plain = replace(later, presets=(), out=config.out.with_name("plain"))
    freeze(prepare(plain))
    with pytest.raises(InputError, match=r"the study there has no --presets for controlnet"):
        prepare(replace(plain, presets=("controlnet=tiny",)))
    path = config.out / "cells" / "syn-geo+generator=painter.unet.fold1.n8.test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "presets": {"painter": "big"}}))
    with pytest.raises(InputError, match=r"has painter with the preset big, .*fold0.* with that of the study"):
        run_study(config, quick.tools)


def test_the_plan_counts_and_names_them(make_config: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def seconds(*arms: str, **options: Any) -> float:
        bench = prepare(make_config(arms=arms, seeds=1, **options))
        return estimate(bench, trainings(bench.splits, arms, ("unet",), ("test",))).seconds

    steps = "controlnet=tiny+max_train_steps=100+adapt_steps=0"
    alone = seconds("syn-geo")
    both = seconds("syn-geo", RIVAL, presets=(steps,)) - seconds("syn-geo", "syn-geo+n=1")
    pairs = len(prepare(make_config(seeds=1)).splits.repetitions[0].train)
    assert both == pytest.approx((100 * 0.7 + pairs * 0.2) * (16 / 64) ** 2 + 90)
    assert seconds("syn-geo+generator=painter") == pytest.approx(alone)
    run_study(make_config(arms=("syn-geo", RIVAL, "syn-geo+generator=painter"), presets=(steps,), dry_run=True))
    printed = capsys.readouterr().out
    assert f"  beside it    controlnet, preset {steps.partition('=')[2]}\n" in printed
    assert "  beside it    painter, without presets\n" in printed
