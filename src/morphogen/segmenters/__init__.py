"""Segmenters: ``forward((B, 3, H, W) in [-1, 1]) -> (B, K, H, W) logits``, one folder a model.

`SEGMENTERS` is the table of them. It holds import paths, so that listing the segmenters imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.errors import InputError
from morphogen.registry import Entry, Registry, load

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class SegmenterEntry(Entry):
    """One line of the table; its config has ``resolved() -> config``.

    Attributes:
        prepare: Import path ``module:function`` of ``(net, train sources, SegmenterConfig, out: Path) -> None``: work
            before the training, in the claimed run folder; called again by a run that is continued. Empty for none.
        recipe: Import path ``module:function`` of ``(n_train) -> options`` with which its authors trained it: fields of
            `SegmenterConfig`, and ``resolution``. Empty where none was published.
        ema_decay: Of the moving average of the trained weights, where none is stated; 0 for none.
    """

    recipe: str = ""
    prepare: str = ""
    ema_decay: float = 0.0


SEGMENTERS: dict[str, SegmenterEntry] = {
    "unet": SegmenterEntry(
        name="unet",
        summary="U-Net on an ImageNet encoder (EfficientNet-Lite0 or VGG16), or from scratch",
        source="Ronneberger et al., MICCAI 2015, arXiv:1505.04597",
        config="morphogen.segmenters.unet.model:UNetConfig",
        build="morphogen.segmenters.unet.model:build",
    ),
    "sanet": SegmenterEntry(
        name="sanet",
        summary="SANet: shallow attention on Res2Net-50, trained with exchanged colours, rare probabilities corrected",
        source="Wei et al., MICCAI 2021, arXiv:2108.00882",
        config="morphogen.segmenters.sanet.model:SANetConfig",
        build="morphogen.segmenters.sanet.model:build",
        recipe="morphogen.segmenters.sanet.recipe:published",
    ),
    "segformer": SegmenterEntry(
        name="segformer",
        summary="hierarchical transformer (MiT) on ImageNet weights and an all-MLP decoder",
        source="Xie et al., NeurIPS 2021, arXiv:2105.15203",
        config="morphogen.segmenters.segformer.model:SegFormerConfig",
        build="morphogen.segmenters.segformer.model:build",
        recipe="morphogen.segmenters.segformer.recipe:published",
        lr=1e-4,
    ),
    "polyp-pvt": SegmenterEntry(
        name="polyp-pvt",
        summary="pyramid vision transformer (PVTv2) on ImageNet weights; fine and coarse levels joined by similarity",
        source="Dong et al., CAAI AIR 2023, arXiv:2108.06932",
        config="morphogen.segmenters.polyp_pvt.model:PolypPVTConfig",
        build="morphogen.segmenters.polyp_pvt.model:build",
        recipe="morphogen.segmenters.polyp_pvt.recipe:published",
        lr=1e-4,
    ),
    "ctnet": SegmenterEntry(
        name="ctnet",
        summary="CTNet: MiT-B3, multiscale interaction, guided collection of levels, pixel contrast",
        source="Xiao et al., IEEE Transactions on Cybernetics 2024, doi:10.1109/TCYB.2024.3368154",
        config="morphogen.segmenters.ctnet.model:CTNetConfig",
        build="morphogen.segmenters.ctnet.model:build",
        recipe="morphogen.segmenters.ctnet.recipe:published",
        lr=1e-4,
    ),
    "features": SegmenterEntry(
        name="features",
        summary="decoder on the frozen features of a foundation (the arm `features` of a study)",
        source="after Baranchuk et al., ICLR 2022, arXiv:2112.03126",
        config="morphogen.segmenters.features.model:FeaturesConfig",
        build="morphogen.segmenters.features.model:build",
    ),
    "latent": SegmenterEntry(
        name="latent",
        summary="single-step latent diffusion of the mask, on a foundation's autoencoder and denoiser",
        source="Aqeel et al. (SynDiff) 2025, arXiv:2507.15361, after Lin et al. (SDSeg), MICCAI 2024, arXiv:2406.18361",
        config="morphogen.segmenters.latent.config:LatentConfig",
        build="morphogen.segmenters.latent.model:build",
        recipe="morphogen.segmenters.latent.recipe:published",
        prepare="morphogen.segmenters.latent.mask_autoencoder:prepare",
        ema_decay=0.98,
    ),
    "diffcl": SegmenterEntry(
        name="diffcl",
        summary="V-Net with high-frequency Mamba, taught with a diffusion network on unlabelled images or volumes",
        source="Guo et al. (Diff-CL) 2025, arXiv:2503.09408",
        config="morphogen.segmenters.diffcl.config:NetConfig",
        build="morphogen.segmenters.diffcl.pictures:build_picture_net",
    ),
}


_TABLE = Registry("segmenter", SEGMENTERS)
entry, named, read_options, option_names = _TABLE.entry, _TABLE.named, _TABLE.read_options, _TABLE.option_names


def published(name: str, n_train: int) -> dict[str, Any]:
    """How the authors of a segmenter trained it: fields of `SegmenterConfig`, and ``resolution``.

    Args:
        name: Segmenter.
        n_train: Training pairs, which turn epochs into steps.

    Raises:
        InputError: Unknown segmenter, or none was published.
    """
    path = entry(name).recipe
    if not path:
        having = ", ".join(other for other, line in SEGMENTERS.items() if line.recipe)
        raise InputError(f"--recipe published: {name} has none; leave it out, or take {having}")
    return dict(load(path)(n_train))


def resolve(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The complete architecture options of a segmenter, with every ``auto`` replaced by what this machine has.

    Args:
        name: Segmenter.
        options: Some or all fields of its config.

    Returns:
        All fields; ``resolve(name, resolve(name, options))`` is the same.

    Raises:
        InputError: Unknown segmenter, field or value.
    """
    return asdict(_TABLE.configure(name, options).resolved())


def build(name: str, n_classes: int, options: Mapping[str, Any] | None = None, pretrained: bool = True) -> nn.Module:
    """A network ``(B, 3, H, W) in [-1, 1] -> (B, n_classes, H, W) logits`` for any H and W.

    Args:
        name: Segmenter.
        n_classes: K, background included.
        options: Fields of its config; resolved here if they are not.
        pretrained: Load the encoder's published weights; False where trained weights follow.

    Raises:
        InputError: Unknown segmenter, field or value, or the weights' package is missing.
    """
    return load(entry(name).build)(n_classes, _TABLE.configure(name, options or {}).resolved(), pretrained)


def prepare(name: str, net: nn.Module, train: Sequence[Any], config: Any, out: Path) -> None:
    """What a segmenter has to do before its training, if anything; see `SegmenterEntry.prepare`.

    Raises:
        WorkError: It failed.
    """
    if path := entry(name).prepare:
        load(path)(net, train, config, out)
