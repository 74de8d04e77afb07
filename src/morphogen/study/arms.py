"""The arms of a study: what each one trains on, and which arm it is compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One way to train the judge.

    Attributes:
        name: As in ``--arms`` and in results.json.
        summary: One line for plans and reports.
        parts: What the training set is made of, in order: ``real`` (the annotated training pairs), ``synthetic``
            (pairs of this repetition's generator), ``extra`` (further real pairs from outside the annotated ones, as
            many as there are synthetic ones), ``autoencoded`` (the real pairs, their images passed through the
            foundation's autoencoder).
        augmentation: ``none`` or ``geometric``.
        control: The arm that it is compared with, or None for a baseline.
        network: Segmenter that takes the judge's place in this arm; its cells carry the judge's name.
    """

    name: str
    summary: str
    parts: tuple[str, ...]
    augmentation: str = "geometric"
    control: str | None = "real-geo"
    network: str | None = None


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("real", "real pairs", ("real",), "none", None),
        Arm("real-geo", "real pairs, geometric augmentation", ("real",), control=None),
        Arm("syn", "real and synthetic pairs", ("real", "synthetic"), "none", "real"),
        Arm("syn-geo", "real and synthetic pairs, geometric augmentation", ("real", "synthetic")),
        Arm("duplicated", "real pairs twice: the noise floor of the comparison", ("real", "real")),
        Arm("more-real", "as many extra real pairs as synthetic ones: the headroom", ("real", "extra")),
        Arm("autoencoded", "real pairs seen through the foundation's autoencoder", ("autoencoded",)),
        Arm("features", "a decoder on the frozen foundation's features, real pairs", ("real",), network="features"),
        Arm("synthetic-only", "synthetic pairs alone", ("synthetic",)),
    )
}
"""Every arm takes the same number of optimiser steps; those with a control share its augmentation."""

DEFAULT_ARMS = ("real", "real-geo", "syn", "syn-geo", "duplicated")
"""`more-real` joins them where the data has enough annotated images outside the annotated ones of the study."""
