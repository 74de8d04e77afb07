"""The options of the latent segmenter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from morphogen.errors import InputError

Objective = Literal["paper", "x0", "x0-align", "x0-pixel"]
Vision = Literal["auto", "autoencoder", "lite0"]
T = 1000
"""Timesteps of the noise schedule; prediction starts at T - 1."""
MAX_ENSEMBLE = 64


@dataclass(frozen=True)
class LatentConfig:
    """Networks and objective, and how it predicts.

    Attributes:
        foundation: Whose autoencoder holds the masks, and whose encoder reads the images: tiny, sd15, a diffusers
            folder, or a hub id. Training needs it; a trained segmenter holds all that it needs.
        denoiser: ``foundation`` for its own U-Net, told the empty prompt; ``churches`` for LDM's shape on LSUN
            churches, from scratch; or the diffusers folder of a UNet2DModel or UNet2DConditionModel.
        vision: What reads the image: ``autoencoder``, a copy of its encoder that trains on, as published, or ``lite0``,
            EfficientNet-Lite0 from ImageNet weights, all levels of it. ``auto`` is lite0 in ``x0-pixel`` where its
            weights are installed, else the autoencoder's.
        objective: ``paper`` predicts the noise (its L1 plus that of the direct estimate), ``x0`` the latent itself,
            ``x0-align`` the same with features aligned to those of a frozen encoder, ``x0-pixel`` the same as ``x0``
            with losses of the decoded mask, which learns sooner and was published by nobody.
        latent_weight: lambda, weight of the direct estimate's L1 in ``paper``.
        pixel_weight: Weight of cross-entropy and soft Dice in ``x0-pixel``.
        last_share: Share of the rows that train at T - 1, where a prediction starts; all others at any timestep. None
            for a half in ``x0-pixel``, and for none elsewhere, as published.
        recycle: The other rows train on noisy versions of the network's own direct estimate, as a prediction of several
            steps meets them, in place of the true latent (Fu et al. 2023, arXiv:2308.16355). None for yes in
            ``x0-pixel``, and for no elsewhere, as published.
        align: The frozen encoder of ``x0-align``: lite0, dinov2, or the folder of a DINOv2.
        dropout: In the residual blocks of denoiser and vision encoder; None for 0.2 where the denoiser is not the
            foundation's own, else none.
        steps: DDIM steps of a prediction; 1 is the direct estimate.
        ensemble: Start noises whose probabilities are averaged.
        seed: Of the start noise, which is the same for every image.
        networks: Shapes of the networks; found by itself, and kept with a trained segmenter.
    """

    foundation: str = "tiny"
    denoiser: str = "foundation"
    vision: Vision = "auto"
    objective: Objective = "x0-pixel"
    latent_weight: float = 1.0
    pixel_weight: float = 1.0
    last_share: float | None = None
    recycle: bool | None = None
    align: str = "lite0"
    dropout: float | None = None
    steps: int = 1
    ensemble: int = 1
    seed: int = 0
    networks: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            known = ", ".join(get_args(Objective))
            raise InputError(f"latent: has no objective {self.objective!r}; choose one of {known}")
        if self.vision not in get_args(Vision):
            raise InputError(f"latent: has no vision {self.vision!r}; choose one of {', '.join(get_args(Vision))}")
        for name, weight in (("latent_weight", self.latent_weight), ("pixel_weight", self.pixel_weight)):
            if not 0 <= weight < math.inf:
                raise InputError(f"latent: {name}={weight}: must be 0 or more")
        if self.last_share is not None and not 0 <= self.last_share <= 1:
            raise InputError(f"latent: last_share={self.last_share}: must lie in 0 to 1")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"latent: dropout={self.dropout}: must lie in 0 to 1, 1 excluded")
        if self.seed < 0:
            raise InputError(f"latent: seed={self.seed}: must be 0 or more")
        refuse_sampling(self.steps, self.ensemble)

    def resolved(self) -> LatentConfig:
        """The same with a folder's whole path, with the dropout, and with the shapes of the networks.

        Raises:
            InputError: There is no such foundation, denoiser or encoder to align to, or they do not fit together.
        """
        if self.networks:
            return self
        from morphogen.metrics.weights import available, locate
        from morphogen.segmenters.latent.align import refuse_unknown
        from morphogen.segmenters.latent.networks import FOUNDATION, describe

        if self.objective == "x0-align":
            refuse_unknown(self.align)
        if self.vision == "lite0":
            locate("lite0")
        features = self.objective == "x0-pixel" and available("lite0")
        vision: Vision = self.vision if self.vision != "auto" else "lite0" if features else "autoencoder"
        dropout = self.dropout if self.dropout is not None else 0.0 if self.denoiser == FOUNDATION else 0.2
        return replace(
            self,
            foundation=_whole(self.foundation),
            denoiser=_whole(self.denoiser),
            align=_whole(self.align),
            vision=vision,
            dropout=dropout,
            last_share=self.last_share if self.last_share is not None else 0.5 * (self.objective == "x0-pixel"),
            recycle=self.recycle if self.recycle is not None else self.objective == "x0-pixel",
            networks=describe(self.foundation, self.denoiser),
        )


def refuse_sampling(steps: int, ensemble: int) -> None:
    """Refuse settings of a prediction that cannot be.

    Raises:
        InputError: Steps or ensemble out of range.
    """
    for name, value, most in (("steps", steps, T), ("ensemble", ensemble, MAX_ENSEMBLE)):
        if not 1 <= value <= most:
            raise InputError(f"--{name} {value}: the segmenter latent takes 1 to {most}")


def _whole(name: str) -> str:
    """A folder's whole path; words and hub ids stay."""
    from morphogen.foundation.model import whole_name

    return name if name in ("foundation", "churches") else whole_name(name)
