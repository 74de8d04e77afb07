"""Studies by other processes than the command's own: Ray tasks and jobs of Slurm give what one process gives."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from morphogen.cli import main
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import plan_study, run_study
from morphogen.study.slurm import write_jobs
from morphogen.study.stages import pieces
from ray_here import WORKERS, needs_ray, two_workers
from segmenters.few_volumes import write_ball

__all__ = ["two_workers"]
Make = Callable[..., StudyConfig]
SBATCH = """#!/bin/bash
# Stands in for Slurm: runs the tasks of an array at once, one after the other, and prints a job number.
echo "$@" >> "$CALLS"
for word in "$@"; do
    case "$word" in
    --array=0-*) last=${word#--array=0-} ;;
    --*) ;;
    *) break ;;
    esac
    shift
done
for task in $(seq 0 "${last:-0}"); do
    SLURM_ARRAY_TASK_ID=$task bash "$@" >> "$CALLS.log" 2>&1 || exit 1
done
echo "$(wc -l < "$CALLS");cluster"
"""
OPTIONS = "--generator copy-paste --annotated 6 --folds 2 --seeds 1 --arms real-geo syn-geo --resolution 32"


@pytest.fixture(scope="module")
def here(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Any]]:
    """Words of a study without its folder, and its results by one process."""
    words = [str(phantom_folder), *OPTIONS.split(), "--steps", "1", "--train-batch-size", "2"]
    out = tmp_path_factory.mktemp("here") / "study"
    assert main(["study", *words, "--out", str(out)]) == 0
    return words, results(out)


def results(out: Path) -> dict[str, Any]:
    """results.json without times."""
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    for cell in found["cells"]:
        del cell["wall_s"]
    del found["protocol"]["hours"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes are started: half a minute on an idle core, minutes on a busy one
def test_jobs_of_slurm_end_with_the_same_results(
    here: tuple[list[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, wanted = here
    out, bin_ = tmp_path / "a study", tmp_path / "bin"
    assert main(["study", *words, "--out", str(out), "--slurm"]) == 0
    assert not list((out / "cells").iterdir())
    bin_.mkdir()
    (bin_ / "sbatch").write_text(SBATCH)
    (bin_ / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    done = subprocess.run(["bash", out / "slurm" / "submit.sh", "--partition=gpu"], capture_output=True, text=True)
    assert done.returncode == 0, (tmp_path / "calls.log").read_text()
    assert results(out) == wanted
    step = str(out / "slurm" / "step.sbatch")
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"--parsable --partition=gpu --array=0-0 {step} synthetic",
        f"--parsable --partition=gpu --array=0-1 --dependency=afterok:1 {step} cells",
        f"--parsable --partition=gpu --array=0-0 --dependency=afterok:1 {step} images",
        f"--parsable --partition=gpu --dependency=afterany:1:2:3 {step} report",
    ]


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes are started: half a minute on an idle core, minutes on a busy one
@pytest.mark.usefixtures("two_workers")
def test_tasks_of_ray_end_with_the_same_results(here: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    words, wanted = here
    out = tmp_path / "study"
    assert main(["study", *words, "--out", str(out), "--ray", "local", "--workers", str(WORKERS)]) == 0
    assert results(out) == wanted


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # workers are busy with the imports of their first task
@pytest.mark.usefixtures("two_workers")
def test_a_comparison_by_tasks_of_ray_ends_with_the_same_results(tmp_path: Path) -> None:
    for i in range(6):
        write_ball(tmp_path / "balls" / f"ball{i}" / "mri_norm2.h5", i)
    (tmp_path / "balls" / "train.list").write_text("".join(f"ball{i}\n" for i in range(6)))
    options = "--rows supervised --labelled 1 --validation 1 --folds 2 --max-train-steps 1"
    options += " --preset la2018+filters=2+patch=16x16x16+operator=none"
    words = ["compare", str(tmp_path / "balls"), *options.split()]
    assert main([*words, "--out", str(tmp_path / "here")]) == 0
    assert main([*words, "--out", str(tmp_path / "ray"), "--ray", "local", "--workers", str(WORKERS)]) == 0
    here, ray = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("here", "ray"))
    for found in (here, ray):
        for row in (*found["cells"], *found["rows"].values()):
            row.pop("train_s")
            row.pop("wall_s", None)
    assert ray == here
    assert len(here["cells"]) == 2
    for name in ("fold0-supervised", "fold1-supervised"):
        cells = [json.loads((tmp_path / out / "cells" / f"{name}.json").read_text()) for out in ("here", "ray")]
        assert cells[0]["scores"] == cells[1]["scores"]


def test_pieces_are_what_is_missing(make_config: Make, quick: Any, without_inception: None) -> None:
    config = make_config(arms=("real", "syn", "syn-geo"))
    plan = plan_study(config)
    found = pieces(plan.bench, plan.trainings)
    assert [piece.pattern for piece in found["synthetic"]] == ["*.fold0.n8.*", "*.fold1.n8.*"]
    assert [piece.pattern for piece in found["images"]] == ["*.fold0.n8.*", "*.fold1.n8.*"]
    assert [piece.pattern for piece in found["cells"]] == [
        f"{arm}.unet.fold{fold}.n8.*" for fold in (0, 1) for arm in ("real", "syn", "syn-geo")
    ]
    run_study(make_config(arms=("real", "syn", "syn-geo"), cells="*.fold0.*"), quick.tools)
    left = pieces(plan.bench, plan.trainings)
    assert {stage: len(some) for stage, some in left.items()} == {"synthetic": 1, "cells": 3, "images": 1}
    assert not any(pieces(plan.bench, [t for t in plan.trainings if t.repetition.fold == 0]).values())


def test_a_stage_is_done_by_itself(make_config: Make, quick: Any, without_inception: None) -> None:
    options: dict[str, Any] = {"arms": ("real", "syn"), "seeds": 1, "gates": ("saturation",)}
    config = make_config(**options)
    run_study(config, quick.tools, only="synthetic")
    assert (config.out / "synthetic" / "fold0" / "gates.json").exists()
    assert not quick.arm("syn")
    run_study(make_config(**options, cells="syn.*"), quick.tools, only="cells")
    assert [path.name for path in (config.out / "cells").iterdir()] == ["syn.unet.fold0.n8.test.json"]
    assert not (config.out / "images").exists()
    assert not (config.out / "results.json").exists()


def test_the_jobs_keep_the_options_and_the_words_of_a_shell(make_config: Make, tmp_path: Path) -> None:
    config = make_config(out=tmp_path / "it's", arms=("syn+text=none",), prompt='it\'s a "polyp"')
    submit = write_jobs(config.out, "study", config, [{"synthetic": []}, {"cells": ["a+b=c d.*"], "images": []}])
    assert "dependency" not in submit.read_text().splitlines()[-3]
    assert "--dependency=afterany:${cells%%;*}" in submit.read_text()
    step = submit.parent / "step.sbatch"
    script = step.read_text().replace("exec ", 'printf "%s\\n" ')
    there = {**os.environ, "SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash", "-c", script, "step", "cells"], capture_output=True, text=True, env=there)
    words = done.stdout.splitlines()[1:]
    assert words[:5] == ["-m", "morphogen", "study", "--config", str(submit.parent / "options.yaml")]
    assert words[5:] == ["--cells", "a+b=c d.*", "--only", "cells"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--slurm", "--cells", "real*"], "--cells real*: every cell becomes a task of its own"),
        (["--slurm", "--only", "cells"], "--ray, --slurm, --only: are three ways to run a study"),
        (["--slurm", "--ray", "local"], "--ray, --slurm, --only: are three ways to run a study"),
        (["--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: does not answer"),
        (["--workers", "2"], "--workers: are those of Ray"),
    ],
)
def test_wrong_ways_are_one_line_and_nothing_is_written(
    words: list[str], says: str, phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert main(["study", str(phantom_folder), *OPTIONS.split(), "--out", str(out), *words]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert len(error.splitlines()) == 1
    assert not out.exists()
