"""The networks of the latent segmenter: their shapes, read from a foundation's folder, and their weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from safetensors import SafetensorError
from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.foundation.model import find_folder
from morphogen.foundation.quiet import quiet

FOUNDATION, CHURCHES = "foundation", "churches"
_KINDS: dict[str, Any] = {"UNet2DModel": UNet2DModel, "UNet2DConditionModel": UNet2DConditionModel}
_CHURCHES = {
    "sample_size": 32, "block_out_channels": [192, 384, 384, 768, 768], "layers_per_block": 2,
    "down_block_types": ["AttnDownBlock2D"] * 4 + ["DownBlock2D"],
    "up_block_types": ["ResnetUpsampleBlock2D"] + ["AttnUpBlock2D"] * 4,
    "downsample_type": "resnet", "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 24, "norm_num_groups": 32, "attn_norm_num_groups": 32,
}  # fmt: skip
_CHURCHES_HEADS = 8
"""At every width, which the config of a UNet2DModel cannot say."""


def describe(foundation: str, denoiser: str) -> dict[str, Any]:
    """What must be known to build the networks without their weights.

    Args:
        foundation: Whose autoencoder.
        denoiser: ``foundation`` for its own U-Net, ``churches``, or a diffusers folder of a U-Net.

    Returns:
        JSON values: ``autoencoder`` (config), ``denoiser`` (class, config, heads or null), ``prompt`` (shapes of the
        embedded empty prompt by name; empty for a U-Net without text).

    Raises:
        InputError: A folder is missing or no such model's, or the denoiser does not work on the autoencoder's latents.
    """
    folder = find_folder(foundation)
    autoencoder = _config(folder / "vae")
    z = int(autoencoder.get("latent_channels", 4))
    if denoiser == CHURCHES:
        config = {**deepcopy(_CHURCHES), "in_channels": z, "out_channels": z}
        found = {"class": "UNet2DModel", "config": config, "heads": _CHURCHES_HEADS}
        return {"autoencoder": autoencoder, "denoiser": found, "prompt": {}}
    source = _denoiser_folder(folder, denoiser)
    config = _config(source)
    kind = config.get("_class_name", "")
    if kind not in _KINDS:
        raise InputError(f"{source}: holds a {kind or 'nameless model'}, not a U-Net; give {' or '.join(_KINDS)}")
    channels = config.get("in_channels", 4), config.get("out_channels", 4)
    if channels != (z, z):
        raise InputError(
            f"{source}: its U-Net takes {channels[0]} channels and gives {channels[1]}, where the latents of "
            f"{foundation} have {z}; give one that works on such latents (one for inpainting does not)"
        )
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        raise InputError(f"{source}: its U-Net asks for class labels, which there are none of; give one without")
    prompt = _prompt_shapes(folder, config, foundation) if kind == "UNet2DConditionModel" else {}
    return {
        "autoencoder": autoencoder,
        "denoiser": {"class": kind, "config": config, "heads": None},
        "prompt": prompt,
    }


def make_autoencoder(shape: Mapping[str, Any], folder: Path | None) -> AutoencoderKL:
    """The autoencoder of `describe`; its weights from a foundation's `folder`, or random."""
    config = shape["autoencoder"]
    made: AutoencoderKL = _load(AutoencoderKL, folder / "vae") if folder else AutoencoderKL.from_config(config)
    return made


def make_denoiser(shape: Mapping[str, Any], folder: Path | None, condition: int, dropout: float) -> nn.Module:
    """The denoiser of `describe`, its input widened to latent and condition; the weights of the new channels are zero.

    Args:
        shape: Of `describe`.
        folder: Where its weights lie; None for random ones.
        condition: Channels of tau.
        dropout: In its residual blocks.
    """
    row = shape["denoiser"]
    kind = _KINDS[row["class"]]
    net: Any = _load(kind, folder) if folder else kind.from_config(row["config"])
    if row["heads"]:
        for module in net.modules():
            if isinstance(module, Attention):
                module.heads = row["heads"]
                module.scale = (module.inner_dim / row["heads"]) ** -0.5
    net.conv_in = widened(net.conv_in, condition)
    net.register_to_config(in_channels=net.conv_in.in_channels)
    set_dropout(net, dropout)
    made: nn.Module = net
    return made


def widened(conv: nn.Conv2d, by: int) -> nn.Conv2d:
    """The convolution for `by` more input channels, whose weights are zero; the others are as they were."""
    shape: Any = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
    made = nn.Conv2d(conv.in_channels + by, conv.out_channels, **shape, device=conv.weight.device)
    with torch.no_grad():
        made.weight.zero_()
        made.weight[:, : conv.in_channels] = conv.weight
        if made.bias is not None and conv.bias is not None:
            made.bias.copy_(conv.bias)
    return made


def set_dropout(net: nn.Module, p: float) -> None:
    """Dropout in every residual block of a diffusers model."""
    for module in net.modules():
        if isinstance(module, ResnetBlock2D):
            module.dropout = nn.Dropout(p)


def denoiser_folder(foundation: str, denoiser: str) -> Path | None:
    """Where the denoiser's weights lie; None where it starts at random."""
    return None if denoiser == CHURCHES else _denoiser_folder(find_folder(foundation), denoiser)


def empty_prompt(foundation: str, shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the denoiser is told in place of a text: the foundation's embedding of the empty one, by name.

    Raises:
        InputError: The foundation's text encoders give another shape than the denoiser takes.
    """
    if not shapes:
        return {}
    from morphogen.foundation.model import Foundation

    found = Foundation.load(foundation).conditioning([""])
    values = {"states": found.states, "pooled": found.pooled, "time_ids": found.time_ids}
    kept = {name: value.clone() for name, value in values.items() if value is not None and name in shapes}
    for name, shape in shapes.items():
        if name not in kept or list(kept[name].shape) != list(shape):
            raise InputError(f"{foundation}: its text embedding is not the one that the denoiser reads; take its own")
    return kept


def _denoiser_folder(foundation: Path, denoiser: str) -> Path:
    if denoiser == FOUNDATION:
        return foundation / "unet"
    folder = Path(denoiser)
    if (folder / "unet" / "config.json").is_file():
        return folder / "unet"
    if not (folder / "config.json").is_file():
        raise InputError(
            f"denoiser={denoiser}: no such denoiser; give {FOUNDATION}, {CHURCHES}, or the diffusers folder of a U-Net"
        )
    return folder


def _prompt_shapes(folder: Path, unet: Mapping[str, Any], foundation: str) -> dict[str, list[int]]:
    """Shapes of the embedded text that a U-Net reads, from the configs of a foundation's text encoders."""
    try:
        length = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())["model_max_length"]
        shapes = {"states": [1, int(length), int(unet["cross_attention_dim"])]}
        if unet.get("addition_embed_type") == "text_time":
            width = json.loads((folder / "text_encoder_2" / "config.json").read_text())["projection_dim"]
            shapes |= {"pooled": [1, int(width)], "time_ids": [1, 6]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: its text encoder does not fit the denoiser; give the foundation that the denoiser is of, or "
            "denoiser=churches"
        ) from error
    return shapes


def _config(folder: Path) -> dict[str, Any]:
    try:
        read = dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: holds no config.json of a diffusers model; give a folder with one") from error
    return {key: value for key, value in read.items() if key != "_name_or_path"}


@quiet()
def _load(kind: Any, folder: Path) -> Any:
    """A model in fp32, every tensor of it from the folder."""
    try:
        model, info = kind.from_pretrained(
            folder, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True
        )
        missing = sorted(info["missing_keys"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"{folder}: is not a whole model in safetensors ({reason}); save it again") from error
    if missing:  # which diffusers would fill with random numbers
        raise InputError(f"{folder}: lacks {missing[0]} and {len(missing) - 1} other tensors; save it again")
    return model
