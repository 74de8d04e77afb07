"""Rates of flagged images with their intervals."""

from __future__ import annotations

from typing import Any

Interval = tuple[float, float]


def rate(flagged: int, n: int) -> dict[str, Any]:
    """``n``, ``flagged``, ``rate`` and ``ci95`` (Wilson's score interval); rate and interval are None where n is 0."""
    if not n:
        return {"n": 0, "flagged": 0, "rate": None, "ci95": None}
    return {"n": n, "flagged": flagged, "rate": flagged / n, "ci95": list(wilson(flagged, n))}


def wilson(flagged: int, n: int) -> Interval:
    """The 95 % score interval of a share (Wilson, 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(flagged, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any] | None:
    """Difference of two rates with its 95 % interval (Newcombe, 1998, method 10: from the two Wilson intervals).

    Returns:
        ``diff`` and ``ci95``, or None where one of the rates rests on nothing.
    """
    if not ours["n"] or not theirs["n"]:
        return None
    p, (low, high) = ours["rate"], ours["ci95"]
    q, (from_, to) = theirs["rate"], theirs["ci95"]
    below, above = ((p - low) ** 2 + (to - q) ** 2) ** 0.5, ((high - p) ** 2 + (q - from_) ** 2) ** 0.5
    return {"diff": p - q, "ci95": [p - q - below, p - q + above]}
