"""Rates and their intervals against their closed forms."""

from __future__ import annotations

import pytest

from morphogen.audit.rates import difference, rate, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 48), (48, 48), (1, 1)])
def test_the_score_interval_is_wilsons(k: int, n: int) -> None:
    z, p = 1.959963984540054, k / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert wilson(k, n) == pytest.approx((max(middle - half, 0), min(middle + half, 1)), abs=1e-12)


def test_nothing_has_no_rate() -> None:
    assert rate(0, 0) == {"n": 0, "flagged": 0, "rate": None, "ci95": None}
    assert difference(rate(1, 4), rate(0, 0)) is None


def test_the_difference_is_newcombes() -> None:
    """The published example: 56/70 against 48/80 gives 0.2 (0.0524 to 0.3339)."""
    found = difference(rate(56, 70), rate(48, 80))
    assert found is not None
    assert found["diff"] == pytest.approx(0.2)
    assert found["ci95"] == pytest.approx([0.0524, 0.3339], abs=5e-5)
