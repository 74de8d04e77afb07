"""The arms of a study: what each one trains on, and which arm it is compared with.

An arm with synthetic pairs may carry options in its name, as a judge does: ``syn-geo+n=100+text=none`` trains on the
first 100 accepted pairs, sampled with ``text=none`` by the same generator as those of ``syn-geo``. So may one that
learns from unannotated images too: ``semi+method=cps``. ``syn-geo+generator=copy-paste`` has its pairs of another
generator than the study's own, ``syn-geo+generator=siamese,copy-paste`` half of them of each.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from morphogen.errors import InputError
from morphogen.generators import GENERATORS
from morphogen.segmenters.diffcl.methods import METHODS


@dataclass(frozen=True)
class Arm:
    """One way to train the judge.

    Attributes:
        name: As in ``--arms`` and in results.json.
        summary: One line for plans and reports.
        parts: What the training set is made of, in order: ``real`` (the annotated training pairs), ``synthetic``
            (pairs of this repetition's generator), ``extra`` (further real pairs from outside the annotated ones, as
            many as there are synthetic ones), ``autoencoded`` (the real pairs, their images passed through the
            foundation's autoencoder), ``oversampled`` (the real pairs and copies of them, which even out the classes of
            the images, as many in all as there are real and synthetic pairs).
        augmentation: ``none`` or ``geometric``.
        control: The arm that it is compared with, or None for a baseline.
        network: Segmenter that takes the judge's place in this arm; its cells carry the judge's name.
        n: Synthetic pairs, the first accepted ones in the order of the plan; None for all.
        gated: Leave out the synthetic pairs that a gate of the study dropped.
        sampling: Further options as (option, word), sorted: those of the generator that are for sampling alone, and
            ``balance``.
        semi: Method by which it learns from the study's unannotated training images too (a key of
            `morphogen.segmenters.diffcl.methods.METHODS`); None for annotated pairs alone.
        generators: What makes its synthetic pairs, of several an equal share each; the study's own where empty.
    """

    name: str
    summary: str
    parts: tuple[str, ...]
    augmentation: str = "geometric"
    control: str | None = "real-geo"
    network: str | None = None
    n: int | None = None
    gated: bool = True
    sampling: tuple[tuple[str, str], ...] = ()
    semi: str | None = None
    generators: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """Its name without options, which is in `ARMS`."""
        return self.name.partition("+")[0]

    @property
    def segments(self) -> bool:
        """Whether it has nothing for classifiers: it has a segmenter of its own, or pseudo-labels that are masks."""
        return self.network is not None or self.semi is not None


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("real", "real pairs", ("real",), "none", None),
        Arm("real-geo", "real pairs, geometric augmentation", ("real",), control=None),
        Arm("oversampled", "real pairs, the rarer classes again: as many as with synthetic ones", ("oversampled",)),
        Arm("syn", "real and synthetic pairs", ("real", "synthetic"), "none", "real"),
        Arm("syn-geo", "real and synthetic pairs, geometric augmentation", ("real", "synthetic")),
        Arm("semi", "real pairs, and unannotated real images without masks", ("real",), semi="diff-cl"),
        Arm(
            "semi-syn",
            "real and synthetic pairs, and unannotated real images without masks",
            ("real", "synthetic"),
            semi="diff-cl",
        ),
        Arm("duplicated", "real pairs twice: the noise floor of the comparison", ("real", "real")),
        Arm("more-real", "as many extra real pairs as synthetic ones: the headroom", ("real", "extra")),
        Arm("autoencoded", "real pairs seen through the foundation's autoencoder", ("autoencoded",)),
        Arm("features", "a decoder on the frozen foundation's features, real pairs", ("real",), network="features"),
        Arm("synthetic-only", "synthetic pairs alone", ("synthetic",)),
    )
}
"""Every arm takes the same number of optimiser steps; those with a control share its augmentation.

A step of ``semi`` and ``semi-syn`` has as many unannotated images beside the annotated ones that all arms see."""

DEFAULT_ARMS = ("real", "real-geo", "syn", "syn-geo", "duplicated")
"""`more-real` joins them where the data has enough annotated images outside the annotated ones of the study."""

BALANCE = "balance"
"""Option that is not the generator's: how its pairs are dealt among classes (`morphogen.sampling.budgets`)."""

UNGATED = "none"
"""Value of the option ``gates``, by which an arm trains on pairs that the study's gates dropped, too."""

MAIN = "syn-geo"
"""The arm that the verdict speaks of is the first one with this base."""


@dataclass(frozen=True)
class Variant:
    """One way in which synthetic pairs are made.

    Attributes:
        options: Sampling options beside the generator's own, as (option, value), sorted; none for the pairs as it makes
            them.
        generator: Whose pairs; None for those of the study's own generator.
    """

    options: tuple[tuple[str, Any], ...] = ()
    generator: str | None = None

    def of(self, label: str) -> str:
        """Name of the folder of a repetition's pairs: ``fold0``, ``fold0+generator=controlnet+text=none``."""
        named = [f"generator={self.generator}"] if self.generator else []
        return "+".join([label, *named, *(f"{option}={value}" for option, value in self.options)])


OWN = Variant()
"""The pairs as the study's own generator makes them."""


def arm(name: str) -> Arm:
    """The arm of this name, with any options: ``syn-geo``, ``syn-geo+n=100+text=none``.

    Whether the generator has these options is not looked at (`morphogen.study.generators.variants_of`).

    Raises:
        InputError: No such arm, an arm without synthetic pairs with options, or a word that is no option.
    """
    base, *words = name.split("+")
    if base not in ARMS:
        near = difflib.get_close_matches(base, ARMS, n=1)
        raise InputError(f"--arms {base}: is not known; did you mean {near[0] if near else ', '.join(ARMS)}?")
    found = ARMS[base]
    if not words:
        return found
    if "synthetic" not in found.parts and found.semi is None:
        raise InputError(f"--arms {name}: {base} has no synthetic pairs, so no options; write {base}")
    options: dict[str, str] = {}
    for word in words:
        option, sign, value = word.partition("=")
        if not (option and sign and value):
            raise InputError(f"--arms {name}: {word!r} is not option=value; write for example {base}+n=100")
        if "/" in value:
            raise InputError(f"--arms {name}: {value!r} holds a /, and arms are names of files; write it without")
        if (option := option.replace("-", "_")) in options:
            raise InputError(f"--arms {name}: gives {option} twice; give it once")
        options[option] = value
    method = found.semi and _method(name, options.pop("method", found.semi))
    if options and "synthetic" not in found.parts:
        fault = f"{base} has no synthetic pairs, so no option {next(iter(options))}"
        raise InputError(f"--arms {name}: {fault}; write {base} or {base}+method=cps")
    generators = _generators(name, options.pop("generator", None))
    if len(generators) > 1 and (rest := options.keys() - {"gates", "n"}):
        fault = f"{min(rest)} is for the sampling of one generator, and it names {len(generators)}"
        raise InputError(f"--arms {name}: {fault}; leave it out")
    gates, n = options.pop("gates", None), _count(name, options.pop("n", None))
    if gates not in (None, UNGATED):
        raise InputError(
            f"--arms {name}: gates takes {UNGATED}, not {gates!r}: {UNGATED} trains on what they dropped too"
        )
    which = "pairs" if gates else "accepted pairs"
    stated = [f"method {method}"] if method != found.semi else []
    stated += [f"pairs of {' and '.join(generators)}"] if generators else []
    stated += [f"the first {n} {which}"] if n else []
    stated += ["whatever the gates say"] if gates else []
    sampling = tuple(sorted(options.items()))
    stated += [f"{option} {value}" for option, value in sampling]
    return replace(
        found,
        name=name,
        summary="; ".join([found.summary, *stated]),
        n=n,
        gated=gates is None,
        sampling=sampling,
        semi=method,
        generators=generators,
    )


def find(name: str) -> Arm | None:
    """As `arm`, None where there is no such arm: cells may come from elsewhere."""
    try:
        return arm(name)
    except InputError:
        return None


def place(name: str) -> tuple[Any, ...]:
    """Sorts arms: as in the table, an arm's variants after it, by method, generators, sampling options, and number."""
    found = find(name)
    if found is None:
        return len(ARMS), 0, (), (), 0, False, name
    method = list(METHODS).index(found.semi) if found.semi else 0
    return list(ARMS).index(found.base), method, found.generators, found.sampling, found.n or 0, not found.gated, name


def lead(arms: Iterable[str]) -> str:
    """The arm that the verdict speaks of: the first one whose base is `MAIN`, and `MAIN` where there is none."""
    return next((name for name in arms if name.partition("+")[0] == MAIN), MAIN)


def _method(name: str, word: str) -> str:
    known = [method for method in METHODS if method != "supervised"]  # which is the arm's control
    if word not in known:
        raise InputError(
            f"--arms {name}: method {word} does not learn from unannotated images; take {', '.join(known)}"
        )
    return word


def _generators(name: str, word: str | None) -> tuple[str, ...]:
    found = () if word is None else tuple(word.split(","))
    for one in found:
        if one not in GENERATORS:
            near = difflib.get_close_matches(one, GENERATORS, n=1) or GENERATORS
            raise InputError(f"--arms {name}: generator {one} is not known; did you mean {', '.join(near)}?")
    if len(set(found)) != len(found):
        raise InputError(f"--arms {name}: names a generator twice; name each once")
    return found


def _count(name: str, word: str | None) -> int | None:
    if word is None:
        return None
    if not (word.isascii() and word.isdigit() and int(word)):
        raise InputError(f"--arms {name}: n takes a whole number from 1 on, not {word!r}; write for example n=100")
    return int(word)
