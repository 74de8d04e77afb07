"""How the weight of what unlabelled data says grows."""

from __future__ import annotations

import math


def sigmoid_ramp(done: float, length: float) -> float:
    """exp(-5 (1 - min(done, length) / length)^2), from 0.0067 to 1 (Laine and Aila 2017, arXiv:1610.02242).

    Args:
        done: Steps since the growth began; 0 before.
        length: Steps that it takes; 0 for 1 from the start.
    """
    if length <= 0:
        return 1.0
    return math.exp(-5 * (1 - min(max(done, 0.0), length) / length) ** 2)
