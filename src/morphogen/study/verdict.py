"""The verdict: did synthetic pairs help, in one word and in one paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morphogen.study.arms import MAIN
from morphogen.study.compare import Comparison, Group
from morphogen.study.kinds import SEGMENTATION, label

CONTROL, HEADROOM, NOISE = "real-geo", "more-real", "duplicated"
ADHERENCE_SLACK = 0.03
"""So much lower than on real images may the Dice of an independent segmenter be on synthetic ones before a claim."""


def judge_study(
    group: Group | None, missing: Sequence[str] = (), adherence: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Compare real + synthetic with real, both with geometric augmentation, on the mean Dice of `group`, or where its
    judge is a classifier on its macro-F1.

    Of several such arms (with options in their names) it is the first one that the study names.

    Args:
        group: The first judge on the study's own test part, or None where no such cell exists.
        missing: Names of the cells that the plan has and the folder has not.
        adherence: Dice of an independent segmenter on the synthetic images, all of them, and on unseen real ones.

    Returns:
        ``outcome`` (helped, hurt or undecided), ``arm``, ``text`` (one paragraph), ``diff``, ``ci95``,
        ``smallest_detectable_gain`` and ``can_detect`` (False: more real data was undecided too; None: not known).
        ``metric`` where it is another one than Dice.
    """
    found = {c.arm: c for c in group.comparisons[group.kind.headline]} if group else {}
    ours = group.lead if group else MAIN
    main, headroom = found.get(ours), found.get(HEADROOM)
    if main is None or group is None:
        return _no_verdict(ours, missing)
    missing = missing if ours == MAIN and not _has_variants(group) else _of_the_verdict(group, missing)
    outcome = "undecided" if main.undecided else "helped" if main.difference.mean > 0 else "hurt"
    sentences = [_lead(outcome, main, group.kind.noun), *_beside(group), _evidence(group, main)]
    sentences += _limits(outcome, main, headroom)
    sentences += _chance(outcome, main, found.get(NOISE))
    sentences += _agreement(adherence)
    return {
        **({} if group.kind is SEGMENTATION else {"metric": group.kind.headline}),
        "outcome": outcome,
        "arm": ours,
        "text": " ".join(sentences + _caveats(main, missing)),
        "diff": main.difference.mean,
        "ci95": main.difference.ci95,
        "smallest_detectable_gain": main.difference.smallest_detectable,
        "can_detect": None if headroom is None else not (main.undecided and headroom.undecided),
    }


def _has_variants(group: Group) -> bool:
    return any("+" in arm for arm in (*group.stated, *group.arms))


def _of_the_verdict(group: Group, missing: Sequence[str]) -> list[str]:
    """The missing cells that the verdict waits for: variants of arms may be planned for a repetition alone."""
    ours = tuple(f"{arm}.{group.judge.replace('/', '_')}." for arm in (group.lead, CONTROL))
    return [name for name in missing if name.startswith(ours) and name.endswith(f".{group.test_set}")]


def _no_verdict(arm: str, missing: Sequence[str]) -> dict[str, Any]:
    text = f"No verdict yet: no repetition has both arms that it compares, {arm} and {CONTROL}."
    if missing:
        text += f" {len(missing)} planned cell{'s are' if len(missing) > 1 else ' is'} missing."
    nothing = {"diff": None, "ci95": None, "smallest_detectable_gain": None, "can_detect": None}
    return {"outcome": "undecided", "arm": arm, "text": text, **nothing}


def _lead(outcome: str, main: Comparison, noun: str) -> str:
    arm, control = main.means
    named = "" if main.arm == MAIN else f" ({main.arm})"
    if outcome == "undecided":
        return (
            f"Undecided: {noun} is {arm:.3f} with synthetic pairs{named} and {control:.3f} without, a difference of "
            f"{main.difference.mean:+.3f}{_interval(main)}, which may be chance."
        )
    word, verb = ("Helped", "raised") if outcome == "helped" else ("Hurt", "lowered")
    return (
        f"{word}: adding synthetic pairs{named} {verb} the {noun} from {control:.3f} to {arm:.3f}, "
        f"a difference of {main.difference.mean:+.3f}{_interval(main)}."
    )


def _beside(group: Group) -> list[str]:
    """What other metrics of the judge say of the same difference."""
    found = [c for metric in group.kind.beside for c in group.comparisons[metric] if c.arm == group.lead]
    return [
        f"{label(c.metric)} went from {c.means[1]:.3f} to {c.means[0]:.3f}, a difference of {c.difference.mean:+.3f}"
        f"{_interval(c)}."
        for c in found
    ]


def _interval(main: Comparison) -> str:
    interval = main.difference.ci95
    return f" (95 % interval {interval[0]:+.3f} to {interval[1]:+.3f})" if interval else " (one subject, no interval)"


def _evidence(group: Group, main: Comparison) -> str:
    found, size = main.difference, f", {group.n_annotated} annotated pairs each" if group.n_annotated else ""
    return (
        f"This rests on {found.n_images} test images of {_count(found.n_subjects, 'subject')}, unseen by the models "
        f"that they test, judged by {group.judge}, and on {_count(found.n_repetitions, 'repetition')}{size}; "
        "all arms took the same number of training steps, and both arms were augmented geometrically."
    )


def _limits(outcome: str, main: Comparison, headroom: Comparison | None) -> list[str]:
    smallest = main.difference.smallest_detectable
    many = "As many further" if main.arm == MAIN else "Further"
    sentences = []
    if smallest is not None:
        sentences.append(f"The smallest gain that a study of this size finds reliably is about {smallest:.3f}.")
    if outcome == "undecided" and headroom is not None and headroom.undecided:
        sentences.append(f"{many} real pairs made no clear difference either: this study cannot detect a gain.")
    elif headroom is not None:
        effect = "made no clear difference" if headroom.undecided else f"changed it by {headroom.difference.mean:+.3f}"
        sentences.append(f"For comparison, {many.lower()} real pairs {effect}{_interval(headroom)}.")
    return sentences


def _chance(outcome: str, main: Comparison, noise: Comparison | None) -> list[str]:
    """What the repetitions and the A/A arm say about chance: under k-fold the interval lacks the seeds' share."""
    signs = [value > 0 for value in main.per_repetition.values()]
    agree = max(sum(signs), len(signs) - sum(signs))
    sentences = [f"The sign is the same in {agree} of {len(signs)} repetitions."] if len(signs) > 1 else []
    if noise is None:
        return sentences
    line = f"Chance alone (real pairs twice) changed it by {noise.difference.mean:+.3f}{_interval(noise)}"
    doubtful = not noise.undecided or abs(noise.difference.mean) >= abs(main.difference.mean)
    if outcome != "undecided" and doubtful:
        line += ", which is more than it should: read this verdict with care"
    return [*sentences, line + "."]


def follows(on_synthetic: float, on_real: float) -> bool:
    """Whether the masks of synthetic images fit them well enough for a claim, by an independent segmenter's Dice."""
    return on_synthetic >= on_real - ADHERENCE_SLACK


def _agreement(adherence: tuple[float, float] | None) -> list[str]:
    if adherence is None or follows(*adherence):
        return []
    ours, real = adherence
    return [
        f"Synthetic images and their masks agree less than real ones do: an independent segmenter reaches a Dice of "
        f"{ours:.3f} on all of them and {real:.3f} on unseen real ones, more than {ADHERENCE_SLACK} higher."
    ]


def _caveats(main: Comparison, missing: Sequence[str]) -> list[str]:
    sentences = []
    if main.difference.n_repetitions == 1:
        sentences.append("One repetition alone is exploratory: it does not show how much training varies.")
    if missing:
        sentences.append(f"Preliminary: {_count(len(missing), 'planned cell')} still missing.")
    return sentences


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
