"""Quality gates of a study: limits from the training part alone, arms train on what is kept, all else is unfiltered."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from morphogen.data.pairs import Pairs
from morphogen.errors import InputError, WorkError
from morphogen.generators import GeneratorEntry
from morphogen.sampling.gates import Limit, judge, write_verdicts
from morphogen.sampling.jobs import Job, Pair
from morphogen.study import gating, report, results
from morphogen.study.bench import Bench
from morphogen.study.gate_judges import gate_architecture
from morphogen.study.gating import gate_summary, kept_pairs, verdicts
from morphogen.study.identity import NOT_THE_CELL, config_hash, identity
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import freeze, prepare, run_study
from morphogen.study.synthesis import as_pictures, synthetic_folder, synthetic_pairs

Make = Callable[..., StudyConfig]
pytestmark = pytest.mark.usefixtures("without_inception")
GATES = ("adherence", "copies", "blur", "saturation")


class Spoiling:
    """The sampler of a study whose first samples are bad, each in a way of its own; the others are plain."""

    def __init__(self, sampler: Any) -> None:
        self.sampler, self.needs, self.hash, self.resolution = sampler, sampler.needs, sampler.hash, sampler.resolution

    def sample(self, jobs: Sequence[Job]) -> list[Pair]:
        return [self._spoilt(job, pair) for job, pair in zip(jobs, self.sampler.sample(jobs), strict=True)]

    def _spoilt(self, job: Job, pair: Pair) -> Pair:
        original = self.sampler.images[list(self.sampler._index).index(_key(job))]
        ways = [
            lambda: original[:, ::-1],
            lambda: gaussian_filter(original, (3, 3, 0)),
            lambda: np.clip((original - 60.0) * 4 + 60, 0, 255),
            lambda: np.full_like(original, (90, 50, 40)),
        ]
        number = sorted(self.sampler._index).index(_key(job))
        return replace(pair, image=ways[number]().astype(np.uint8)) if number < len(ways) else pair


def _key(job: Job) -> int:
    from morphogen.generators.copy_paste.model import _key

    assert job.source is not None
    return _key(job.source.id)


@pytest.fixture
def spoiling(monkeypatch: pytest.MonkeyPatch) -> None:
    load = GeneratorEntry.load
    monkeypatch.setattr(GeneratorEntry, "load", lambda self, run, device="cpu": Spoiling(load(self, run, device)))


def bench_of(config: StudyConfig) -> Bench:
    bench = prepare(config)
    freeze(bench)
    return bench


def rows_of(bench: Bench, label: str = "fold0") -> list[dict[str, Any]]:
    lines = (bench.out / "synthetic" / label / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.usefixtures("spoiling")
def test_each_gate_rejects_its_planted_sample(make_config: Make, quick: Any) -> None:
    bench = bench_of(make_config(gates=GATES, annotated=None, resolution=24))
    r = bench.splits.repetitions[0]
    found = verdicts(bench, r, synthetic_pairs(bench, r), quick.tools)
    from morphogen.generators.copy_paste.model import _key

    ordered = sorted(r.train, key=_key)
    copied, blurred, glaring, without = (found.dropped[f"{i}_00"] for i in ordered[:4])
    assert "copies" in copied
    assert "blur" in blurred
    assert "saturation" in glaring
    assert "adherence" in without
    assert found.scores[f"{ordered[0]}_00"]["nearness"] < 1
    assert found.scores[f"{ordered[3]}_00"]["dice"] == 0


def test_arms_train_on_the_kept_pairs_and_everything_else_sees_all(make_config: Make, quick: Any) -> None:
    config = make_config(gates=("copies",), annotated=None, arms=("real", "syn", "synthetic-only"), per_mask=2)
    found = run_study(config, quick.tools)
    bench = prepare(config)
    for r in bench.splits.repetitions:
        rows = rows_of(bench, r.label)
        kept = [row["id"] for row in rows if not row["dropped"]]
        assert 0 < len(kept) < len(rows) == 2 * len(r.train)
        for arm in ("syn", "synthetic-only"):
            job = next(job for job in quick.arm(arm) if r.label in job.out.name)
            assert list(job.train[-1].dataset.ids) == kept
        images = json.loads((bench.out / "images" / f"{r.label}.json").read_text())
        assert images["n_synthetic"] == images["adherence"]["n"] == images["audit"]["memorisation"]["n"] == len(rows)
        gates = found["audit"][r.label]["gates"]
        assert (gates["accepted"], gates["rejected"]) == (len(kept), len(rows) - len(kept))
        assert gates["reasons"] == {"copies": images["audit"]["memorisation"]["flagged"]}
        cells = [c for c in found["cells"] if c["fold"] == r.fold and c["arm"] != "real"]
        assert {c["n_synthetic"] for c in cells} == {len(kept)}
        assert len(list((bench.out / "synthetic" / r.label / "images").iterdir())) == len(rows)
    assert "Quality gates" in (bench.out / "report.html").read_text()


def test_a_resumed_run_gives_the_same_manifest(
    make_config: Make, quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "build", lambda out: results.join(out).results)
    options = {"gates": GATES, "arms": ("syn",), "annotated": None, "per_mask": 2}
    config, whole = make_config(**options), make_config(**options, out=tmp_path / "w")
    run_study(whole, quick.tools)
    stopped: list[int] = []

    def write(folder: Path, found: Any) -> None:
        stopped.append(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gating, "write_verdicts", write)
        with pytest.raises(KeyboardInterrupt):
            run_study(config, quick.tools)
    run_study(config, quick.tools)
    assert len(stopped) == 1
    manifests = [(out / "synthetic" / "fold0" / "manifest.jsonl").read_bytes() for out in (config.out, whole.out)]
    limits = [(out / "synthetic" / "fold0" / "gates.json").read_bytes() for out in (config.out, whole.out)]
    assert manifests[0] == manifests[1]
    assert limits[0] == limits[1]
    jobs = len(quick.jobs)
    run_study(config, quick.tools)
    assert (config.out / "synthetic" / "fold0" / "manifest.jsonl").read_bytes() == manifests[0]
    assert len(quick.jobs) == jobs


def test_limits_do_not_see_validation_or_test(
    make_config: Make, quick: Any, phantom_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(phantom_folder, tmp_path / "data")
    bench = bench_of(make_config(data=tmp_path / "data", gates=GATES, annotated=8))
    r = bench.splits.repetitions[0]
    made = synthetic_pairs(bench, r)
    before = verdicts(bench, r, made, quick.tools)
    for i in (*r.validation, *r.test, *r.pool, *r.extra):
        record = bench.dataset.select([i])[0]
        record.image.write_bytes(b"gone")
        assert record.mask is not None
        record.mask.write_bytes(b"gone")
    after = verdicts(bench, r, made, quick.tools)
    assert after == before
    assert {limit.n for limit in after.limits if limit.gate != "adherence"} == {len(r.train)}


def test_the_gate_segmenter_is_of_its_own(make_config: Make, quick: Any) -> None:
    bench = bench_of(make_config(gates=("adherence",), annotated=None, folds=5))
    r = bench.splits.repetitions[1]
    found = verdicts(bench, r, synthetic_pairs(bench, r), quick.tools)
    limit = found.limits[0]
    # without ImageNet weights both are the U-Net from scratch, and the result says so
    assert found.summary()["segmenter"] == {
        "name": "unet",
        "architecture": {"encoder": "scratch"},
        "seed": 2001,
        "architecture_of_the_judge_of_adherence": True,
    }
    (job,) = quick.jobs
    learnt = set(job.train[0].dataset.ids)
    assert (job.seed, job.judge, dict(job.architecture)) == (2001, "unet", {"encoder": "scratch"})
    assert learnt < set(r.train)
    assert len(job.validation) == 0
    rest = [i for i in r.train if i not in learnt]
    of = bench.splits.subjects
    assert limit.n == len(rest)
    assert 3 * len(rest) == len(r.train) > 0
    assert {of[i] for i in learnt}.isdisjoint(of[i] for i in rest)
    pairs = Pairs(bench.dataset.select(rest), 16)
    dices = []
    for k in range(len(pairs)):
        image, mask = pairs[k]
        label = as_pictures([image])[0][..., 0] > 128
        dices.append(2 * (label & (mask > 0)).sum() / (label.sum() + (mask > 0).sum()))
    assert limit.low == pytest.approx(np.percentile(dices, 10))


@pytest.mark.parametrize(
    ("installed", "judge", "encoder"),
    [
        (True, "unet", "scratch"),
        (True, "unet+encoder=scratch", "lite0"),
        (False, "unet", "scratch"),
        (True, "features", "scratch"),
    ],
)
def test_the_gate_has_another_architecture_than_the_judge_of_adherence_where_it_can(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, installed: bool, judge: str, encoder: str
) -> None:
    from morphogen.metrics import weights

    monkeypatch.setattr(weights, "available", lambda name: installed)
    assert gate_architecture(make_config(judges=(judge,))) == ("unet", {"encoder": encoder})


def test_the_gate_segmenter_may_be_stated(make_config: Make, quick: Any) -> None:
    """DiffAug's validation is the single-step latent segmenter's."""
    config = make_config(gates=("agreement",), gate_segmenter="latent+objective=x0", annotated=8)
    config.check()
    bench = bench_of(config)
    r = bench.splits.repetitions[0]
    found = verdicts(bench, r, synthetic_pairs(bench, r), quick.tools)
    (job,) = quick.jobs
    assert (job.judge, dict(job.architecture)) == ("latent", {"objective": "x0"})
    segmenter = found.summary()["segmenter"]
    assert (segmenter["name"], segmenter["architecture_of_the_judge_of_adherence"]) == ("latent", False)


def test_a_gate_segmenter_changes_the_cells_and_none_leaves_their_hash(make_config: Make) -> None:
    plain, stated = (make_config(gates=("agreement",), gate_segmenter=name) for name in (None, "latent"))
    assert config_hash(plain, "splits") != config_hash(stated, "splits")
    values = {k: v for k, v in identity(plain).items() if k not in (*NOT_THE_CELL, "gate_segmenter")}
    for name in ("mask_values", "balance", "synthetic", "recipe"):
        del values[name]
    expected = hashlib.sha256(json.dumps([values, "splits"], sort_keys=True).encode()).hexdigest()[:12]
    assert config_hash(plain, "splits") == expected


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"gates": ("blur",), "gate_segmenter": "latent"}, "--gate-segmenter latent: no gate among --gates"),
        ({"gates": ("agreement",), "gate_segmenter": "latnt"}, "--gate-segmenter latnt: .*latent"),
        ({"gates": ("agreement",), "gate_segmenter": "small"}, "--gate-segmenter small"),
        ({"gates": ("agreement",), "gate_segmenter": "latent+objective=y"}, "objective"),
    ],
)
def test_a_gate_segmenter_that_cannot_be_is_refused(make_config: Make, options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        make_config(**options).check()


def test_a_gate_segmenter_whose_weights_are_missing_is_found_before_anything_is_made(
    make_config: Make, tmp_path: Path
) -> None:
    config = make_config(gates=("agreement",), gate_segmenter=f"segformer+size=b0+weights={tmp_path / 'gone'}")
    with pytest.raises(InputError, match="gone"):
        prepare(config)
    assert not config.out.exists()


def test_without_gates_all_pairs_are_kept_and_the_manifest_is_untouched(make_config: Make, quick: Any) -> None:
    bench = bench_of(make_config())
    r = bench.splits.repetitions[0]
    assert kept_pairs(bench, r, quick.tools).ids == synthetic_pairs(bench, r).ids
    assert gate_summary(bench, r, quick.tools) is None
    assert not any({"gates", "dropped"} & {*row} for row in rows_of(bench))
    assert not (synthetic_folder(bench, r) / "gates.json").exists()


def test_verdicts_of_somebody_else_are_not_the_studys(make_config: Make, quick: Any) -> None:
    """Another one may judge the folder by the same gates, with limits that saw the test part."""
    bench = bench_of(make_config(gates=("blur",), annotated=None))
    r = bench.splits.repetitions[0]
    kept = kept_pairs(bench, r, quick.tools).ids
    rows = rows_of(bench)
    folder = synthetic_folder(bench, r)
    foreign = judge(
        ["blur"],
        [Limit.of("sharpness", [0.0])],
        [row["id"] for row in rows],
        {"sharpness": [-1.0, *[1.0] * (len(rows) - 1)]},
        ["x"],
    )
    write_verdicts(folder, foreign)
    assert kept_pairs(bench, r, quick.tools).ids == kept
    assert rows_of(bench) == rows


def test_nothing_left_is_one_line(make_config: Make, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(make_config(gates=("blur",)))
    r = bench.splits.repetitions[0]
    monkeypatch.setattr(
        gating, "picture_scores", lambda images, gates: {"sharpness": [float(-len(images))] * len(images)}
    )
    made = synthetic_pairs(bench, r)
    monkeypatch.setattr(
        gating.Limit, "of", classmethod(lambda cls, name, values: cls(name, "blur", 1.0, None, (1, None), len(values)))
    )
    for _ in range(2):
        with pytest.raises(WorkError, match=rf"dropped all {len(made)} synthetic pairs \(blur {len(made)}\); leave"):
            kept_pairs(bench, r, quick.tools)


def test_too_few_training_images_are_found_before_anything_is_made(make_config: Make) -> None:
    with pytest.raises(InputError, match=r"--gates blur: fold0 trains on a single image"):
        prepare(make_config(gates=("blur",), annotated=2))
