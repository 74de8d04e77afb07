"""A study's pieces as Ray tasks: synthetic pairs of all repetitions first, then cells and measures side by side.

Cells are independent and files appear whole, so that results.json is the same as after `run_study`, but for times. A
task whose worker is lost is started again, over what its files say is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from morphogen.cluster import Crew, crew, plain_faults
from morphogen.errors import MorphogenError
from morphogen.progress import Stage, say
from morphogen.study.bench import Bench
from morphogen.study.cells import default_tools
from morphogen.study.recipe import StudyConfig
from morphogen.study.run import disk_faults, freeze, plan_study
from morphogen.study.stages import Piece, perform, pieces

LIVES = 3
"""How often a task may lose its worker."""


def study_on_ray(config: StudyConfig, address: str, workers: int | None = None) -> dict[str, Any]:
    """Run or continue a study by the workers of a Ray cluster, in the folders that all machines share.

    Args:
        config: What to do.
        address: See `morphogen.cluster.crew`.
        workers: The same.

    Returns:
        The content of results.json, or of the plan with ``dry_run``.

    Raises:
        InputError: As of `run_study` and `crew`.
        WorkError: A piece failed; those that could be made were.
    """
    from morphogen.study.report import build

    plan = plan_study(config)
    if config.dry_run:
        return plan.summary
    found = pieces(plan.bench, plan.trainings)
    with crew(address, workers) as hands, disk_faults(config.out):
        freeze(plan.bench)
        for stages in (("synthetic",), ("cells", "images")):
            chosen = {f"{p.stage} {p.pattern}": (plan.bench, p) for stage in stages for p in found[stage]}
            busy = [name for names in do_all(hands, do_piece, chosen, " and ".join(stages)) for name in names]
            if busy:
                say(f"left to another process that is at work on them: {', '.join(busy)}")
        return build(config.out)


def do_piece(bench: Bench, piece: Piece) -> list[str]:
    """What a task does; see `perform`."""
    with disk_faults(bench.out):
        return perform(bench, piece.stage, piece.trainings, default_tools())


def do_all(
    hands: Crew, function: Callable[..., Any], calls: Mapping[str, Sequence[Any]], description: str
) -> list[Any]:
    """Call a function with each of these arguments, as a Ray task each, in this process's folder.

    Returns:
        What they returned, in no order.

    Raises:
        MorphogenError: The first fault, when all tasks have ended; the others are printed.
    """
    import ray

    options: dict[str, Any] = {**hands.each, "max_retries": LIVES}
    task: Any = ray.remote(**options)(_in_folder)
    left = {task.remote(os.getcwd(), function, list(arguments)): name for name, arguments in calls.items()}
    results, faults = [], []
    with Stage(description, len(left)) as stage:
        while left:
            reference = ray.wait(list(left))[0][0]
            name = left.pop(reference)
            try:
                with plain_faults():
                    results.append(ray.get(reference))
            except MorphogenError as error:
                say(f"{name}: {error}")
                faults.append(error)
            stage.advance()
    if faults:
        raise faults[0]
    return results


def _in_folder(folder: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Call where the paths of the command mean what they meant there."""
    os.chdir(folder)
    return function(*arguments)
