"""Pyramid vision transformers: MiT, the encoder of SegFormer, and PVTv2, from which it comes.

Xie et al., "SegFormer" (NeurIPS 2021, arXiv:2105.15203) and Wang et al., "PVT v2" (CVMJ 2022, arXiv:2106.13797). Both
are transformers' modules; here they take an image in [-1, 1], have the constants that their authors trained with, and
load weights of the hub as well as weights in the authors' own layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from morphogen.segmenters.pretrained import IMAGENET, NONE, load_encoder, weights_file

STRIDE = 32
"""Of the coarsest of the four levels; the others have 4, 8 and 16."""

_WIDE = (64, 128, 320, 512)
_NARROW = (32, 64, 160, 256)
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PyramidSize:
    """One published size.

    Attributes:
        channels: Of the four levels, the finest first.
        depths: Blocks of the four levels.
        weights: Hub id of the published ImageNet-1k weights, at a pinned revision that holds safetensors.
    """

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    weights: str


MIT = {
    "b0": PyramidSize(_NARROW, (2, 2, 2, 2), "nvidia/mit-b0@25ce79d97e6d9d509ed12e17cb2eb89b0a83a2dc"),
    "b1": PyramidSize(_WIDE, (2, 2, 2, 2), "nvidia/mit-b1@44575a0572f5374ed1e5b4e46ec8276222f6ffe8"),
    "b2": PyramidSize(_WIDE, (3, 4, 6, 3), "nvidia/mit-b2@d15ed1f9ae92346f6a6067dbb490a62494ae0d28"),
    "b3": PyramidSize(_WIDE, (3, 4, 18, 3), "nvidia/mit-b3@4c2f314b6a213100cb822264a737f39d1ce062b8"),
    "b4": PyramidSize(_WIDE, (3, 8, 27, 3), "nvidia/mit-b4@8b08776183e7059b0a27a2dc186d4db5d89fea1a"),
    "b5": PyramidSize(_WIDE, (3, 6, 40, 3), "nvidia/mit-b5@8c15ac959fdc3130572f9320d6955cef46046a72"),
}
PVT_V2 = {
    "b0": PyramidSize(_NARROW, (2, 2, 2, 2), "OpenGVLab/pvt_v2_b0@523f2ba74e749bc74fcf11a72c1a6a243ad8ffc3"),
    "b2": PyramidSize(_WIDE, (3, 4, 6, 3), "OpenGVLab/pvt_v2_b2@e787234432e7ad9a54c770055b7c1e5b9338c378"),
}


class _Pyramid(nn.Module):
    """What both have in common: ImageNet's normalisation and the authors' constants."""

    mean: Tensor
    std: Tensor

    def __init__(self, stages: nn.ModuleList) -> None:
        super().__init__()
        self.stages = stages
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        for name, module in stages.named_modules():
            if isinstance(module, nn.LayerNorm):
                # the authors left torch's epsilon where patches are embedded and keys reduced, and set it elsewhere
                module.eps = 1e-5 if "patch_embedding" in name or "attention" in name else 1e-6

    def _normalised(self, image: Tensor) -> Tensor:
        return (image * 0.5 + 0.5 - self.mean) / self.std


class MixTransformer(_Pyramid):
    """MiT: self-attention on reduced keys, and feed-forward layers with a depthwise convolution."""

    def __init__(self, size: PyramidSize) -> None:
        from transformers import SegformerConfig, SegformerModel

        config = SegformerConfig(
            hidden_sizes=size.channels, depths=size.depths, num_attention_heads=_HEADS, sr_ratios=_REDUCTIONS
        )
        super().__init__(SegformerModel(config).stages)
        _initialise(self.stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> (B, C, H/s, W/s) for s = 4, 8, 16, 32; H and W are multiples of `STRIDE`."""
        x, levels = self._normalised(image), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class PyramidTransformer(_Pyramid):
    """PVTv2: as MiT, but with wider feed-forward layers in the two finest levels."""

    def __init__(self, size: PyramidSize) -> None:
        from transformers import PvtV2Config, PvtV2Model

        config = PvtV2Config(
            hidden_sizes=size.channels,
            depths=size.depths,
            num_attention_heads=_HEADS,
            sr_ratios=_REDUCTIONS,
            drop_path_rate=0.1,
        )
        super().__init__(PvtV2Model(config).encoder.layers)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> (B, C, H/s, W/s) for s = 4, 8, 16, 32; H and W are multiples of `STRIDE`."""
        x, levels = self._normalised(image), []
        for stage in self.stages:
            (tokens, *_), height, width = stage(x, False)
            x = tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()
            levels.append(x)
        return levels


def mix_transformer(size: str, weights: str) -> MixTransformer:
    """MiT with the weights that `weights` names.

    Args:
        size: A key of `MIT`.
        weights: ``imagenet``, ``none``, or what `weights_file` takes: the layout of transformers or of the authors.

    Raises:
        InputError: The weights cannot be had, or are not those of this size.
    """
    encoder = MixTransformer(MIT[size])
    if weights != NONE:
        load_encoder(encoder, weights_file(MIT[size].weights if weights == IMAGENET else weights), mit_name)
    return encoder


def pyramid_transformer(size: str, weights: str) -> PyramidTransformer:
    """PVTv2 with the weights that `weights` names.

    Args:
        size: A key of `PVT_V2`.
        weights: ``imagenet``, ``none``, or what `weights_file` takes: the layout of transformers or of the authors.

    Raises:
        InputError: The weights cannot be had, or are not those of this size.
    """
    encoder = PyramidTransformer(PVT_V2[size])
    if weights != NONE:
        load_encoder(encoder, weights_file(PVT_V2[size].weights if weights == IMAGENET else weights), pvt_v2_name)
    return encoder


def mit_name(key: str) -> str | tuple[str, str] | None:
    """The name in `MixTransformer` of a key in a file of MiT or SegFormer; None for what is no part of the encoder."""
    if key.startswith(_NOT_THE_ENCODER):
        return None
    key = re.sub(r"^(backbone|segformer)\.", "", key)
    return _from_authors(key, "patch_embeddings", _MIT_BLOCK) or _replaced(key, _MIT_HUB)


def pvt_v2_name(key: str) -> str | tuple[str, str] | None:
    """The name in `PyramidTransformer` of a key in a file of PVTv2; None for what is no part of the encoder."""
    if key.startswith(_NOT_THE_ENCODER):
        return None
    key = re.sub(r"^(backbone|pvt_v2)\.", "", key)
    return _from_authors(key, "patch_embedding", _PVT_V2_BLOCK) or key.replace("encoder.layers.", "stages.", 1)


_NOT_THE_ENCODER = ("head.", "classifier.", "decode_head.")
_AUTHORS = re.compile(r"(patch_embed|block|norm)([1-4])\.(?:(\d+)\.)?(.+)")
_MIT_BLOCK: Mapping[str, Sequence[str]] = {
    "norm1": ["layernorm_before"],
    "norm2": ["layernorm_after"],
    "attn.q": ["attention.q_proj"],
    "attn.kv": ["attention.k_proj", "attention.v_proj"],
    "attn.proj": ["attention.o_proj"],
    "attn.sr": ["attention.sequence_reduction.sequence_reduction"],
    "attn.norm": ["attention.sequence_reduction.layer_norm"],
}
_PVT_V2_BLOCK: Mapping[str, Sequence[str]] = {
    "norm1": ["layer_norm_1"],
    "norm2": ["layer_norm_2"],
    "attn.q": ["attention.query"],
    "attn.kv": ["attention.key", "attention.value"],
    "attn.proj": ["attention.proj"],
    "attn.sr": ["attention.spatial_reduction"],
    "attn.norm": ["attention.layer_norm"],
    "mlp.fc1": ["mlp.dense1"],
    "mlp.fc2": ["mlp.dense2"],
}
_MIT_HUB = {
    r"^encoder\.patch_embeddings\.(\d)\.": r"stages.\1.patch_embeddings.",
    r"^encoder\.block\.(\d)\.": r"stages.\1.blocks.",
    r"^encoder\.layer_norm\.(\d)\.": r"stages.\1.layer_norm.",
    r"\.layer_norm_1\.": ".layernorm_before.",
    r"\.layer_norm_2\.": ".layernorm_after.",
    r"\.attention\.self\.(q|k|v)(uery|ey|alue)\.": r".attention.\1_proj.",
    r"\.attention\.self\.sr\.": ".attention.sequence_reduction.sequence_reduction.",
    r"\.attention\.self\.layer_norm\.": ".attention.sequence_reduction.layer_norm.",
    r"\.attention\.output\.dense\.": ".attention.o_proj.",
    r"\.mlp\.dense([12])\.": r".mlp.fc\1.",
}
"""Names of the hub's files beside those of transformers from release 5 on."""


def _from_authors(key: str, patches: str, block: Mapping[str, Sequence[str]]) -> str | tuple[str, str] | None:
    """The new name of a key in the authors' layout, two where it holds keys and values; None for another layout."""
    found = _AUTHORS.fullmatch(key)
    if not found:
        return None
    part, number, index, rest = found.groups()
    leaf, _, kind = rest.rpartition(".")
    stage = f"stages.{int(number) - 1}"
    if part == "norm":
        return f"{stage}.layer_norm.{kind}"
    if part == "patch_embed":
        return f"{stage}.{patches}.{'layer_norm' if leaf == 'norm' else leaf}.{kind}"
    names = [f"{stage}.blocks.{index}.{name}.{kind}" for name in block.get(leaf, [leaf])]
    return (names[0], names[1]) if len(names) == 2 else names[0]


def _replaced(key: str, rules: Mapping[str, str]) -> str:
    for pattern, replacement in rules.items():
        key = re.sub(pattern, replacement, key)
    return key


def _initialise(module: nn.Module) -> None:
    """The authors' random start; transformers has it for PVTv2 alone."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)
