"""A study or comparison as jobs of Slurm: arrays whose tasks are its pieces, and a last job that joins them.

``slurm/step.sbatch`` is what a task runs: the verb for one pattern of cells, by the position of the task in its array.
``slurm/submit.sh`` submits the arrays one after the other with their dependencies. Both only name files of the folder;
Slurm itself is not asked anything here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from morphogen.errors import InputError
from morphogen.files import write_text
from morphogen.progress import say

NOT_FOR_TASKS = ("cells", "dry_run")
"""Options that differ from task to task, or start nothing."""

STEP = """#!/bin/bash
#SBATCH --job-name=morphogen
#SBATCH --output={log}/%x-%A_%a.log
# One piece of {out}, by morphogen {verb}: `submit.sh` beside this file says which arrays there are.
set -eu
cd {folder}
case "$1" in
{cases}
    report) exec {python} -m morphogen report {out} ;;
esac
exec {python} -m morphogen {verb} --config {options} --cells "${{cells[$SLURM_ARRAY_TASK_ID]}}" $only
"""
CASE = """    {stage})
        cells=({patterns})
        only={only}
        ;;"""
SUBMIT = """#!/bin/bash
# Submits {out} to Slurm. Options of sbatch are passed on: bash submit.sh --partition=gpu --gres=gpu:1 --time=2:00:00
set -eu
{lines}
echo "submitted; {out}/report.html is written at the end"
"""


def write_jobs(out: Path, verb: str, config: Any, waves: Sequence[Mapping[str, Sequence[str]]]) -> Path:
    """Write ``slurm/`` into the folder of a study, and say how the jobs are submitted.

    Args:
        out: Folder of the study, which exists.
        verb: ``study`` or ``compare``.
        config: Its options, a dataclass.
        waves: Stage -> patterns of cells, one a task; a wave begins when the one before has succeeded.

    Returns:
        The script that submits them.
    """
    folder = out.absolute() / "slurm"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    options = folder / "options.yaml"
    write_text(options, yaml.safe_dump(_options(config), sort_keys=False))
    stages = {stage: patterns for wave in waves for stage, patterns in wave.items() if patterns}
    cases = [
        CASE.format(stage=stage, patterns=" ".join(map(quote, patterns)), only=_only(verb, stage))
        for stage, patterns in stages.items()
    ]
    step = STEP.format(
        log=quote(str(folder / "logs")),
        verb=verb,
        out=quote(str(out.absolute())),
        folder=quote(str(Path.cwd())),
        cases="\n".join(cases),
        python=quote(sys.executable),
        options=quote(str(options)),
    )
    write_text(folder / "step.sbatch", step)
    lines = _submissions(folder / "step.sbatch", waves)
    write_text(folder / "submit.sh", SUBMIT.format(out=quote(str(out.absolute())), lines="\n".join(lines)))
    tasks = ", ".join(f"{len(patterns)} of {stage}" for stage, patterns in stages.items())
    say(f"tasks for Slurm: {tasks or 'none is missing'}; submit them with")
    say(f"  bash {folder / 'submit.sh'} [options of sbatch]")
    return folder / "submit.sh"


def refuse_cells(config: Any) -> None:
    """Refuse a choice of cells, of which each is to be a task.

    Raises:
        InputError: `config` has one.
    """
    if config.cells != type(config).cells:
        raise InputError(f"--cells {config.cells}: every cell becomes a task of its own; leave the option out")


def _only(verb: str, stage: str) -> str:
    return quote(f"--only {stage}") if verb == "study" else "''"


def _options(config: Any) -> dict[str, Any]:
    """Options that are not the verb's own defaults, as its ``--config`` reads them."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in NOT_FOR_TASKS or value == field.default:
            continue
        if isinstance(value, Path):
            value = str(value.absolute())
        found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def _submissions(step: Path, waves: Sequence[Mapping[str, Sequence[str]]]) -> list[str]:
    """Lines of shell: an array for each stage, after those of the wave before, and the report after all."""
    before = ""
    lines: list[str] = []
    every: list[str] = []
    for wave in waves:
        jobs = []
        for stage, patterns in wave.items():
            if patterns:
                array = f"--array=0-{len(patterns) - 1}{before and f' --dependency=afterok{before}'}"
                lines.append(f'{stage}=$(sbatch --parsable "$@" {array} {quote(str(step))} {stage})')
                jobs.append(f":${{{stage}%%;*}}")  # with several clusters their name stands behind the number
        before, every = "".join(jobs) or before, [*every, *jobs]
    after = every and f"--dependency=afterany{''.join(every)} "
    lines.append(f'sbatch --parsable "$@" {after or ""}{quote(str(step))} report')
    return lines
