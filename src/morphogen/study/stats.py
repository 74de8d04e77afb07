"""Means, differences, intervals and tests over subjects, images and seeds.

What is estimated is the mean over images. What is uncertain about it are the subjects (the unit that a new hospital
would draw anew), the images of a subject, and the training seed where every seed was scored on the same images
("crossed"). Under k-fold each image is scored by one run alone: the seed's share is then part of the scatter between
subjects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Repetition = Mapping[str, tuple[str, float]]
"""Scores of one trained run: image id -> (subject, value)."""

DRAWS = 4000
EXACT_SUBJECTS = 14
FEW_SUBJECTS = 8
DETECTABLE = 2.8
"""z(0.975) + z(0.80): a gain of so many standard errors is found in 80 of 100 such studies at the 5 % level."""


@dataclass(frozen=True)
class Block:
    """Images that the same repetitions have scored.

    `values` is (R, n) float64; its column i belongs to image `ids[i]` of subject `subjects[i]`.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    values: Array


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty.

    Attributes:
        mean: Mean over all images, each the mean of its repetitions.
        ci95: 95 % interval, or None where there are fewer than two subjects, so that nothing can be resampled.
        se: Standard error, or None likewise.
        n_images: Distinct images.
        n_subjects: Distinct subjects.
        n_repetitions: Trained runs behind the mean.
        p_crossed: That the mean is 0, two-sided, by Student's t; None where no seed was crossed, or `se` is None.
    """

    mean: float
    ci95: tuple[float, float] | None
    se: float | None
    n_images: int
    n_subjects: int
    n_repetitions: int
    p_crossed: float | None = None

    @property
    def smallest_detectable(self) -> float | None:
        """The smallest true value that a study like this one finds four times in five: 2.8 standard errors."""
        return None if self.se is None else DETECTABLE * self.se


@dataclass(frozen=True)
class Contrast:
    """An arm against its control.

    Attributes:
        difference: Arm minus control.
        p: That there is none, two-sided.
        means: Of the arm and of the control.
        per_repetition: The difference in every single repetition, in their order.
    """

    difference: Estimate
    p: float
    means: tuple[float, float]
    per_repetition: tuple[float, ...]


def blocks_of(repetitions: Sequence[Repetition]) -> tuple[Block, ...]:
    """Group repetitions by the images that they scored: one block where seeds are crossed, one per fold under k-fold.

    The result does not depend on the order of repetitions or images.

    Raises:
        ValueError: Two repetitions share some of their images but not all.
    """
    groups: dict[tuple[str, ...], list[Repetition]] = {}
    for repetition in repetitions:
        groups.setdefault(tuple(sorted(repetition)), []).append(repetition)
    if sum(map(len, groups)) != len(set().union(*groups)):
        raise ValueError("repetitions share some images but not all")
    blocks = []
    for ids, group in sorted(groups.items()):
        rows = sorted([repetition[i][1] for i in ids] for repetition in group)
        blocks.append(Block(ids, tuple(group[0][i][0] for i in ids), np.array(rows, dtype=np.float64)))
    return tuple(blocks)


def difference(arm: Sequence[Repetition], control: Sequence[Repetition]) -> list[Repetition]:
    """Arm minus control, image by image, for matched repetitions.

    Raises:
        ValueError: A pair of repetitions scored different images.
    """
    result: list[Repetition] = []
    for ours, theirs in zip(arm, control, strict=True):
        if ours.keys() != theirs.keys():
            raise ValueError("matched repetitions scored different images")
        result.append({i: (subject, value - theirs[i][1]) for i, (subject, value) in ours.items()})
    return result


def estimate(
    repetitions: Sequence[Repetition],
    seed: int = 0,
    draws: int = DRAWS,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Mean over images with a 95 % interval of the hierarchical bootstrap.

    The percentiles are widened from the normal's to Student's t of (subjects - 1) degrees of freedom, since the
    percentile interval is too narrow for few subjects (Hesterberg, The American Statistician 69, 2015). Where seeds are
    crossed, they are few too, and the degrees of freedom are Satterthwaite's (`degrees_of_freedom`). Below seven of
    them these percentiles lie beyond what so few can be drawn to, and the interval is mean -+ t se.

    Args:
        repetitions: Scores of every run.
        seed: Of the draws.
        draws: Resampled studies.
        within: Range that the mean cannot leave, which cuts the interval.

    Raises:
        ValueError: As `blocks_of`.
    """
    blocks = blocks_of(repetitions)
    n_images = sum(len(block.ids) for block in blocks)
    n_subjects = len({s for block in blocks for s in block.subjects})
    means = bootstrap_means(blocks, np.random.default_rng(seed), draws) if n_subjects > 1 else np.empty(0)
    sizes = n_images, n_subjects, len(repetitions)
    crossed = [(len(b.ids) / n_images) * b.values.mean(axis=1) for b in blocks if len(b.values) > 1]
    return estimate_of(mean_over_images(repetitions), means, sizes, within, crossed)


def estimate_of(
    value: float,
    drawn: Array,
    sizes: tuple[int, int, int],
    within: tuple[float, float] = (-np.inf, np.inf),
    crossed: Sequence[Array] = (),
) -> Estimate:
    """A value with the interval (see `estimate`) that its resampled values give.

    Args:
        value: Of the study.
        drawn: (draws,) the same of resampled studies; not looked at with fewer than two subjects.
        sizes: Images, subjects and repetitions.
        within: As for `estimate`.
        crossed: Of every block of images that several seeds have scored, (R,) what each seed adds to the value.
    """
    from scipy.special import ndtr, stdtr, stdtrit

    n_subjects = sizes[1]
    if n_subjects < 2:
        return Estimate(value, None, None, *sizes)
    se = float(drawn.std(ddof=1))
    df = degrees_of_freedom(se**2, n_subjects, crossed)
    t = float(stdtrit(df, 0.975))
    low, high = value - t * se, value + t * se
    if df >= FEW_SUBJECTS - 1:
        low, high = np.quantile(drawn, [ndtr(-t), ndtr(t)])
    interval = float(max(low, within[0])), float(min(high, within[1]))
    p = (float(2 * stdtr(df, -abs(value) / se)) if se else float(not value)) if crossed else None
    return Estimate(value, interval, se, *sizes, p)


def degrees_of_freedom(variance: float, n_subjects: int, crossed: Sequence[Array]) -> float:
    """Those of Student's t for a mean of this variance: subjects - 1, or fewer where crossed seeds share in it.

    By Satterthwaite (Biometrics Bulletin 2, 1946): (sum V)^2 / sum (V^2 / df) over the seeds' share of every block,
    with R - 1 degrees of freedom, and the rest, with subjects - 1.

    Args:
        variance: Squared standard error of the mean.
        n_subjects: 2 or more.
        crossed: As for `estimate_of`.
    """
    seeds = [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in crossed]
    rest = max(variance - sum(v for v, _ in seeds), 0.0)
    shares = [(rest, n_subjects - 1), *seeds]
    total = sum(v for v, _ in shares)
    return total**2 / sum(v**2 / df for v, df in shares) if total else float(n_subjects - 1)


def mean_over_images(repetitions: Sequence[Repetition]) -> float:
    """Mean over all images, each the mean of its repetitions."""
    return float(np.concatenate([block.values.mean(axis=0) for block in blocks_of(repetitions)]).mean())


def bootstrap_means(blocks: Sequence[Block], rng: np.random.Generator, draws: int) -> Array:
    """(draws,) means of resampled studies: subjects, then the images within each, then crossed repetitions.

    Resampling is done by counts: drawing a subject of n images c times, n images each time, is a multinomial draw of
    c n images. Of k subjects (or crossed repetitions) k - 1 are drawn, which makes the variance of their mean unbiased
    (Rao and Wu, JASA 83, 1988).
    """
    total, weight = np.zeros(draws), np.zeros(draws)
    for part in resample([(block.subjects, len(block.values)) for block in blocks], rng, draws):
        values = blocks[part.block].values[:, part.columns]
        total += ((part.images @ values.T) * part.repetitions).sum(axis=1)
        weight += part.images.sum(axis=1)
    return total / weight


@dataclass(frozen=True)
class Resampled:
    """The images of one subject in one block, in every resampled study.

    Attributes:
        block: Number of the block.
        columns: (n,) bool: which of its images these are.
        images: (draws, m): how often each of them is drawn.
        repetitions: (draws, R): weights of the block's repetitions, the same for all its subjects.
    """

    block: int
    columns: NDArray[np.bool_]
    images: NDArray[np.int64]
    repetitions: Array


def resample(blocks: Sequence[tuple[Sequence[str], int]], rng: np.random.Generator, draws: int) -> Iterator[Resampled]:
    """Resampled studies (see `bootstrap_means`), subject by subject.

    Args:
        blocks: Of every block the subjects of its images, and how many repetitions have scored them.
        rng: Draws.
        draws: Resampled studies.
    """
    subjects = sorted({s for of_images, _ in blocks for s in of_images})
    counts = dict(zip(subjects, _counts(rng, len(subjects), draws).T, strict=True))
    for number, (of_images, n_repetitions) in enumerate(blocks):
        repetitions = _repetition_weights(rng, n_repetitions, draws)
        of_subject = np.array(of_images)
        for subject in sorted(set(of_images)):
            columns = of_subject == subject
            n = int(columns.sum())
            images = rng.multinomial(counts[subject] * n, np.full(n, 1 / n))
            yield Resampled(number, columns, images, repetitions)


def _counts(rng: np.random.Generator, k: int, draws: int) -> NDArray[np.int64]:
    """(draws, k): how often each of k units occurs among k - 1 draws with replacement."""
    return rng.multinomial(k - 1, np.full(k, 1 / k), size=draws)


def _repetition_weights(rng: np.random.Generator, k: int, draws: int) -> Array:
    """(draws, k) weights that sum to 1; a single repetition cannot be resampled."""
    return np.ones((draws, 1)) if k == 1 else _counts(rng, k, draws) / (k - 1)


def subject_means(repetitions: Sequence[Repetition]) -> Array:
    """(S,) mean of each subject over its images and repetitions, ordered by subject."""
    per_subject: dict[str, list[float]] = {}
    for block in blocks_of(repetitions):
        for subject, value in zip(block.subjects, block.values.mean(axis=0), strict=True):
            per_subject.setdefault(subject, []).append(float(value))
    return np.array([np.mean(per_subject[subject]) for subject in sorted(per_subject)])


def sign_flip(values: Array, seed: int = 0, draws: int = 20_000) -> float:
    """Two-sided p of the paired sign-flip test that `values` (S,), one difference per subject, scatter around 0.

    All 2^S sign patterns are tried for up to 14 subjects; else random ones, the observed pattern counted among them
    (Phipson and Smyth, 2010), so that p is never 0.
    """
    n = len(values)
    observed = abs(values.sum()) * (1 - 1e-12)
    if n <= EXACT_SUBJECTS:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((np.abs((1.0 - 2.0 * patterns) @ values) >= observed).mean())
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    return float((1 + (np.abs(signs @ values) >= observed).sum()) / (1 + draws))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted
