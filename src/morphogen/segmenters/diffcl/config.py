"""How to learn from few labelled and many unlabelled images or volumes: Diff-CL, and the methods beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from morphogen.errors import InputError
from morphogen.segmenters.diffcl.hfm import HFMConfig
from morphogen.segmenters.diffcl.vnet import MULTIPLE, Norm, VNetConfig
from morphogen.training.supervised import SupervisedConfig

Method = Literal["diff-cl", "cps", "ua-mt", "bcp", "supervised"]
NO_HFM: Literal["none"] = "none"
_MU = {"diff-cl": 0.3, "cps": 0.3, "ua-mt": 0.1, "bcp": 0.5, "supervised": 0.0}
"""Weight of what unlabelled data says where none is stated; of UA-MT and BCP as published."""


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The convolutional network: V-Net with high-frequency modules at some skips.

    Attributes:
        filters: Channels of the V-Net's first level.
        norm: ``batch`` or ``instance``.
        operator: High-pass of the high-frequency module: ``fft``, ``haar``, ``laplacian``, or ``none`` for no module.
            [ours]
        hfm: Levels whose skip has the module, as digits: ``34``. [ours]
        mixer: ``mamba``, or ``conv`` for a convolution in its place.
        cut: s of the FFT high-pass, in cycles per voxel. [ours]

    Raises:
        InputError: A value is out of range.
    """

    filters: int = 16
    norm: Norm = "batch"
    operator: Literal["fft", "haar", "laplacian", "none"] = "fft"
    hfm: str = "34"
    mixer: Literal["mamba", "conv"] = "mamba"
    cut: float = 0.1

    def __post_init__(self) -> None:
        if not self.hfm.isdigit():
            raise InputError(f"hfm {self.hfm}: write levels as digits, 34 say; operator=none is for no module")
        self.shape(dims=3, in_channels=1, n_classes=2)  # refuses what it cannot be

    def resolved(self) -> NetConfig:
        """The same: nothing depends on the machine."""
        return self

    def shape(self, dims: int, in_channels: int, n_classes: int) -> VNetConfig:
        """The network for images (2) or volumes (3)."""
        levels: tuple[int, ...] = ()
        module = HFMConfig()
        if self.operator != NO_HFM:
            levels = tuple(sorted(int(level) for level in set(self.hfm)))
            module = HFMConfig(operator=self.operator, mixer=self.mixer, cut=self.cut)
        return VNetConfig(
            dims=dims,
            in_channels=in_channels,
            n_classes=n_classes,
            filters=self.filters,
            norm=self.norm,
            hfm=levels,
            high_frequency=module,
        )


@dataclass(frozen=True, kw_only=True)
class SemiConfig(SupervisedConfig, NetConfig):
    """How to train. What the paper leaves open is marked: [ours] is a choice of this package.

    A row of a batch is a labelled and an unlabelled patch: ``train_batch_size`` of 2 is the published 2 + 2.

    Attributes:
        method: ``diff-cl``; ``cps``, two networks that teach each other (Chen et al., CVPR 2021, arXiv:2106.01226);
            ``ua-mt`` (Yu et al., MICCAI 2019, arXiv:1907.07034); ``bcp`` (Bai et al., CVPR 2023, arXiv:2305.00673);
            ``supervised``, the labelled data alone.
        mu: Weight of what unlabelled data says, mu1 and mu2; None for the method's own. [ours]
        eta: Weight of the contrast within it; 0 for none. [ours: SS-Net's]
        start: Part of the steps before unlabelled data has a say. [ours]
        patience: Part of the steps, after `start`, in which the convolutional network does not listen to the diffusion
            network yet, which learns more slowly, while that one listens already. [ours]
        ramp: Part of the steps in which its weight grows. [ours]
        confidence: Pseudo-labels of lower probability do not count; 0 for all. [ours]
        pseudo_dice: Soft Dice beside cross-entropy on pseudo-labels; where foreground is rare, cross-entropy alone
            makes it shrink. [ours]
        pseudo_steps: DDIM steps of a pseudo-label in training. [ours]
        test_steps: DDIM steps of a prediction by the diffusion network.
        signal_scale: b of the mask's signal (`morphogen.segmenters.diffcl.diffusion`). [ours]
        late: How much oftener large t are drawn; 0 for uniform. [ours]
        denoiser_dropout: Of the diffusion network, after every convolution: 0.1 as GenericSSL has it.
        denoiser_norm: Normalisation of the diffusion network. Statistics of a batch mix the time steps of its rows,
            where those that are sampled together have one; statistics of an instance do not. [ours]
        bank: Features that are remembered of each class. [ours]
        rho: Part of the voxels that count as most and as least like a class. [ours]
        tau: Temperature of the contrast.
        voxels: Most voxels of each set. [ours]
        teacher_decay: Of the mean teacher of UA-MT and BCP.
        validate_by: Network whose validation score chooses the weights, and that predicts: ``cs``, ``ds`` or ``mean``.

    Raises:
        InputError: A value is out of range.
    """

    method: Method = "diff-cl"
    mu: float | None = None
    eta: float = 0.1
    start: float = 0.1
    patience: float = 0.15
    ramp: float = 0.2
    confidence: float = 0.0
    pseudo_dice: bool = True
    pseudo_steps: int = 1
    test_steps: int = 10
    signal_scale: float = 0.1
    late: float = 10.0
    denoiser_dropout: float = 0.1
    denoiser_norm: Norm = "instance"
    bank: int = 256
    rho: float = 0.1
    tau: float = 0.1
    voxels: int = 1024
    teacher_decay: float = 0.99
    validate_by: Literal["cs", "ds", "mean"] = "cs"

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        NetConfig.__post_init__(self)
        self._one_of("method", get_args(Method))
        self._one_of("validate_by", ("cs", "ds", "mean"))
        self._one_of("denoiser_norm", get_args(Norm))
        self._positive("tau", "cut", "signal_scale", "rho")
        self._not_negative("mu", "eta", "late")
        for name in ("start", "patience", "ramp", "confidence", "teacher_decay", "rho", "signal_scale"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name.replace('_', '-')} {getattr(self, name)}: must lie in 0 to 1")
        for name, most in (("pseudo_steps", 1000), ("test_steps", 1000), ("bank", 1 << 20), ("voxels", 1 << 20)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name.replace('_', '-')} {getattr(self, name)}: must lie in 1 to {most}")
        if self.method == "bcp" and self.train_batch_size < 2 * self.gradient_accumulation_steps:
            raise InputError("bcp: pastes patches of a batch into each other; give 2 rows at least to each part of it")
        if self.method == "diff-cl" and self.start + self.patience >= 1:
            fault = f"start {self.start} and patience {self.patience}: leave no step for unlabelled data"
            raise InputError(f"{fault}; together they must lie below 1")
        if self.validate_by != "cs" and self.method != "diff-cl":
            raise InputError(f"validate-by {self.validate_by}: {self.method} has no diffusion network; leave it out")

    def denoiser(self, dims: int, in_channels: int, n_classes: int) -> VNetConfig:
        """The diffusion network: as the other one, without its high-frequency modules."""
        plain = replace(self.shape(dims, in_channels, n_classes), hfm=())
        return replace(plain, norm=self.denoiser_norm, dropout=self.denoiser_dropout, denoiser=True)

    @property
    def weight(self) -> float:
        """mu, stated or the method's own."""
        return _MU[self.method] if self.mu is None else self.mu


def refuse_patch(patch: tuple[int, ...], config: SemiConfig | None = None) -> None:
    """Refuse a patch that the V-Net cannot halve four times, or of whose coarsest level it cannot take statistics.

    Args:
        patch: Its sides.
        config: How it is trained; None where that is not known yet.

    Raises:
        InputError: A side is no multiple of 16, or there is one value a channel.
    """
    said = "x".join(map(str, patch))
    for side in patch:
        if side < MULTIPLE or side % MULTIPLE:
            near = max(1, round(side / MULTIPLE)) * MULTIPLE
            raise InputError(f"patch {said}: sides must be multiples of {MULTIPLE}; write {near} for {side}")
    if config is None:
        return
    cells = math.prod(side // MULTIPLE for side in patch)
    norms = {config.norm, config.denoiser_norm} if config.method == "diff-cl" else {config.norm}
    rows = 1 if "instance" in norms else config.train_batch_size // config.gradient_accumulation_steps
    if cells * rows < 2:
        remedy = "take a larger patch" if "instance" in norms else "take a larger patch, or 2 rows at least"
        raise InputError(f"patch {said}: leaves one value to normalise at the coarsest level; {remedy}")
