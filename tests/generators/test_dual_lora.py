"""Low-rank updates of the dual generator: files that other readers load, and runs that hold nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from generators.dual_parts import labelled, quick
from morphogen.errors import InputError
from morphogen.foundation.halves import predict
from morphogen.foundation.lora_files import DIFFUSERS, KOHYA
from morphogen.foundation.model import Foundation
from morphogen.generators.dual import model
from morphogen.segmenters.latent import mask_autoencoder
from small_foundations import perturb, small_foundation


@pytest.fixture(scope="module", params=["joint", "canvas"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Layout, a stock folder, and a run that trained updates of it."""
    root = tmp_path_factory.mktemp(request.param)
    made = small_foundation("sd", root / "t", "v_prediction" if request.param == "canvas" else "epsilon")
    perturb(made.unet)
    made.save(root / "stock")
    config = quick(
        root / "stock", layout=request.param, tuning="lora", lora_rank=4, lora_alpha=6.0, lr=3e-2, conv_lr=1e-2,
        lora_targets="attention-ff", guidance=2.0, mixed_precision="bf16", gradient_checkpointing=True,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_autoencoder, "_STEPS", 1)
        patch.setattr(mask_autoencoder, "_TURNS", 1)
        return request.param, root / "stock", model.train(labelled(root / "d"), config, root / "run")


def output(unet: Any, made: Foundation, shape: tuple[int, ...]) -> torch.Tensor:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return predict(unet, x, torch.tensor([50, 800]), made.conditioning(["melanoma", ""]))


@pytest.mark.parametrize("file", [DIFFUSERS, KOHYA])
def test_stock_pipelines_load_either_file(file: str, trained: tuple[str, Path, Path]) -> None:
    layout, stock, run = trained
    ours = model.load(run).foundation
    pipeline = StableDiffusionPipeline.from_pretrained(stock)
    before = {name: p.clone() for name, p in pipeline.unet.named_parameters()}
    pipeline.load_lora_weights(run / "final" / "lora", weight_name=file)
    if layout == "canvas":  # the U-Net is the foundation's, with updates
        theirs = output(pipeline.unet, ours, (4, 8, 16))
        assert torch.allclose(output(ours.unet, ours, (4, 8, 16)), theirs, atol=1e-5)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after, mine = dict(pipeline.unet.named_parameters()), dict(ours.unet.named_parameters())
    assert after.keys() == mine.keys()
    changed = {name for name, p in before.items() if not torch.allclose(p, after[name], atol=1e-6)}
    assert {name.rsplit(".", 2)[-2] for name in changed} >= {"to_q", "to_k", "to_v", "2", "proj"}
    for name, p in mine.items():
        if not name.startswith(("conv_in", "conv_out")):
            assert torch.allclose(p, after[name], atol=1e-5), name


def test_a_run_holds_updates_and_widened_layers_alone(trained: tuple[str, Path, Path]) -> None:
    layout, stock, run = trained
    names = {path.name for path in (run / "final").iterdir()}
    always = {"lora", "mask_vae", "captions.json", "generator.json", "grammar.yaml"}
    assert names == always | ({"layers.safetensors"} if layout == "joint" else set())
    unet, old = model.load(run).foundation.unet, Foundation.load(stock).unet
    if layout == "joint":
        assert float(unet.conv_in.weight[:, 4:].abs().max()) > 0
        assert not torch.equal(unet.conv_out.weight[:4], old.conv_out.weight)
    else:
        assert torch.equal(unet.conv_in.weight, old.conv_in.weight)


def test_other_weights_and_lost_layers_are_refused(trained: tuple[str, Path, Path], tmp_path: Path) -> None:
    layout, stock, run = trained
    info = run / "final" / "generator.json"
    text = info.read_text()
    other = small_foundation("sd", tmp_path / "t")
    perturb(other.unet, seed=5)
    other.save(tmp_path / "other")
    try:
        info.write_text(text.replace(str(stock), str(tmp_path / "other")))
        with pytest.raises(InputError, match="holds low-rank updates of other weights than those in"):
            model.load(run)
    finally:
        info.write_text(text)
    if layout == "joint":
        layers = run / "final" / "layers.safetensors"
        content = layers.read_bytes()
        try:
            layers.write_bytes(content[:100])
            with pytest.raises(InputError, match="does not hold the widened layers of this U-Net") as caught:
                model.load(run)
            assert "\n" not in str(caught.value)
        finally:
            layers.write_bytes(content)
