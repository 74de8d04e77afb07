"""The dual generator at the size of Stable Diffusion 2, on networks without content."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import UNet2DConditionModel

from generators.dual_parts import quick
from morphogen.foundation.lora import ATTENTION, FEED_FORWARD
from morphogen.generators.dual.config import dual_config
from morphogen.generators.dual.layout import widened
from morphogen.generators.dual.memory import need
from morphogen.generators.dual.task import trained_modules
from small_foundations import small_tiny


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "runs" / "dual_memory.py"
    spec = spec_from_file_location("run_of_dual_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(parameters: object) -> int:
    return sum(p.numel() for p in parameters)  # type: ignore[attr-defined]


def test_parameters_of_every_part(script: ModuleType) -> None:
    """Of the published model; the widened layers add 4 x 9 weights for each of 320 channels twice, and 4 biases."""
    foundation = script.stable_diffusion_2()
    assert count(foundation.unet.parameters()) == 865_910_724
    assert count(foundation.vae.parameters()) == 83_653_863
    assert count(foundation.text_encoders[0].parameters()) == 340_387_840
    with torch.device("meta"):
        assert count(widened(foundation).unet.parameters()) == 865_910_724 + 2 * 4 * 9 * 320 + 4


@pytest.mark.parametrize(("targets", "ends"), [("attention", ATTENTION), ("attention-ff", (*ATTENTION, *FEED_FORWARD))])
def test_what_trains(targets: str, ends: tuple[str, ...], script: ModuleType) -> None:
    """Rank 32: 32 (in + out) weights a layer, and the two widened layers."""
    foundation = script.stable_diffusion_2()
    layers = [m for name, m in foundation.unet.named_modules() if name.endswith(ends)]
    with torch.device("meta"):
        shell = widened(replace(foundation, unet=UNet2DConditionModel.from_config(foundation.unet.config)))
        modules = trained_modules(shell.unet, replace(dual_config("sd2"), lora_targets=targets))
    convs = 320 * 8 * 9 + 320 + 8 * 320 * 9 + 8
    updates = sum(32 * (layer.in_features + layer.out_features) for layer in layers)
    assert count(p for p in modules.parameters() if p.requires_grad) == updates + convs


@pytest.mark.slow
def test_a_canvas_takes_more_for_a_row() -> None:
    foundation = small_tiny()
    cond = foundation.conditioning([""])
    joint, canvas = (need(foundation, cond, quick("", layout=layout), 32) for layout in ("joint", "canvas"))
    weights = sum(count(module.parameters()) for module in foundation.modules)
    assert joint.first > 4 * weights
    assert canvas.further > joint.further > 0
