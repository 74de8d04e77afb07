"""Foreign checkpoints as runs of ours: the authors' merged file, LDM-style ControlNet files, stock ControlNet folders.

The authors store a ControlNet in the layout of the LDM repositories (``control_model.*``, and beside it the whole
pipeline with the trained decoder under ``model.diffusion_model.*``); their hint encoder lies in
``input_hint_block.0`` with the names below, its zero convolution in ``input_hint_block.1``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from morphogen.errors import InputError
from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation
from morphogen.foundation.quiet import quiet
from morphogen.generators.siamese.artefact import save
from morphogen.generators.siamese.config import SiameseConfig
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.step import Networks
from morphogen.training.checkpoint import sha256, write_folder
from morphogen.training.loop import claim

CONTROL, UNET, HINT = "control_model.", "model.diffusion_model.", "input_hint_block."
_STAGES = {
    "initial_conv": 0, "layer1": 1, "conv_before_res2": 2, "layer2": 3, "patch_merge1": 4, "conv_before_res3": 5,
    "layer3": 6, "patch_merge2": 7, "conv_before_res4": 8, "layer4": 9, "patch_merge3": 10, "conv_before_res5": 11,
    "layer5": 12,
}  # fmt: skip
"""The authors' names of the stages of their hint encoder -> position in `DenseHint`."""
_INNER = {"conv1": "first", "conv2": "second"}
_OURS = "controlnet_cond_embedding."


def import_weights(source: Path, config: SiameseConfig, classes: tuple[str, ...], prompt: str, out: Path) -> Path:
    """Make a run folder from a foreign checkpoint; nothing in it is executed. Called again, return what is there.

    Args:
        source: A .pth, .ckpt, .bin or .safetensors file in the authors' layout, or a stock ControlNet folder.
        config: Its foundation gives autoencoder, text encoder and, where `source` holds none, the U-Net; resolution,
            solver and guidance are those of sampling.
        classes: Class names by label id, background first.
        prompt: Default prompt.
        out: Run folder.

    Raises:
        InputError: `source` is none of these, holds code, lacks a tensor or does not fit the foundation, or `out`
            holds another run.
    """
    if not source.exists():
        raise InputError(f"{source}: does not exist; give the checkpoint's file or a ControlNet folder")
    weights = source / "diffusion_pytorch_model.safetensors" if source.is_dir() else source
    if not weights.exists():
        raise InputError(f"{source}: holds no {weights.name}; give a ControlNet folder that diffusers has saved")
    settings = {"imported": sha256(weights), "foundation": config.foundation, "classes": list(classes)}
    if (out / "final").exists():
        claim(out, settings)  # refuses another run's folder
        return out
    foundation = Foundation.load(config.foundation)
    foundation.check_prompts([prompt])
    if source.is_dir():
        nets, hint = Networks(foundation, _stock(source, foundation), DecoderHalf(foundation.unet)), "plain"
    else:
        nets, hint = _from_file(source, foundation)
    changes = {"hint": hint, "hint_width": nets.controlnet.config.hint_width, "prompt": prompt}
    made = type(config)(**{**vars(config), **changes})
    claim(out, settings)
    write_folder(out / "final", lambda folder: save(folder, nets, made, classes, [[prompt]]))
    return out


@quiet()
def _stock(folder: Path, foundation: Foundation) -> HintedControlNet:
    """A ControlNet folder of diffusers, for the foundation."""
    try:
        config = ControlNetModel.load_config(folder)
        tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: is no ControlNet folder in safetensors ({_line(error)})") from error
    controlnet = HintedControlNet.for_foundation(foundation, "plain")
    if tuple(config["conditioning_embedding_out_channels"]) != controlnet.config.conditioning_embedding_out_channels:
        controlnet = _with_hint(foundation, tuple(config["conditioning_embedding_out_channels"]))
    _fill(controlnet, tensors, folder, foundation)
    return controlnet


def _with_hint(foundation: Foundation, channels: tuple[int, ...]) -> HintedControlNet:
    stock = ControlNetModel.from_unet(foundation.unet, conditioning_embedding_out_channels=channels)
    return HintedControlNet(hint="plain", **{k: v for k, v in stock.config.items() if not k.startswith("_")})


def _from_file(path: Path, foundation: Foundation) -> tuple[Networks, str]:
    """The networks of a file in the LDM layout, and which hint encoder it has."""
    tensors = read_tensors(path)
    control = {k.removeprefix(CONTROL): v for k, v in tensors.items() if k.startswith(CONTROL)} or tensors
    if "time_embed.0.weight" not in control:
        raise InputError(f"{path}: holds no ControlNet ({CONTROL}time_embed.0.weight); give the merged checkpoint")
    first = control.get(f"{HINT}0.initial_conv.weight")
    hint = "plain" if first is None else "dense"
    width = 16 if first is None else int(first.shape[0])
    controlnet = HintedControlNet.for_foundation(foundation, hint, width)
    trunk = {k: v for k, v in control.items() if hint == "plain" or not k.startswith(HINT)}
    converted = {k: v for k, v in convert_controlnet_checkpoint(trunk, controlnet.config).items() if v is not None}
    if hint == "dense":
        converted |= _dense_hint(control)
    _fill(controlnet, converted, path, foundation)
    if any(k.startswith(UNET) for k in tensors):  # with the trained decoder
        _fill(foundation.unet, convert_ldm_unet_checkpoint(tensors, foundation.unet.config), path, foundation)
    return Networks(foundation, controlnet, DecoderHalf(foundation.unet)), hint


def _dense_hint(control: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' hint encoder under our names."""
    found = {}
    for key, value in control.items():
        if key.startswith(f"{HINT}1."):
            found[f"{_OURS}13.{key.removeprefix(f'{HINT}1.')}"] = value
        elif key.startswith(f"{HINT}0."):
            stage, _, rest = key.removeprefix(f"{HINT}0.").partition(".")
            inner, dot, name = rest.partition(".")
            found[f"{_OURS}{_STAGES.get(stage, stage)}.{_INNER.get(inner, inner)}{dot}{name}"] = value
    return found


def _fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: Path, foundation: Foundation) -> None:
    """Load every tensor of `module`; one that is missing, left over or of another shape is refused."""
    wanted = module.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        fault = f"lacks {name}" if name in wanted else f"holds {name}, which {foundation.source} has no place for"
        raise InputError(f"{source}: {fault}; name the --foundation that it was trained on")
    for name, value in tensors.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, {foundation.source} wants {tuple(wanted[name].shape)}"
            raise InputError(f"{source}: {name} is {shapes}; name the --foundation that it was trained on")
    module.load_state_dict({name: value.float() for name, value in tensors.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or torch file; of a torch file tensors alone are read, and code in it is refused.

    Raises:
        InputError: The file cannot be read in this way.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: holds more than tensors, which is not read ({_line(error)})") from error
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise InputError(f"{path}: is no checkpoint of torch or safetensors ({_line(error)})") from error
    held = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise InputError(f"{path}: holds no named tensors; give the merged checkpoint or its state_dict")
    return held


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
