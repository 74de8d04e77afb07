"""Low-rank updates of the inpainting generator: what trains, and files that other readers load."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.prompts import Grammar
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.halves import predict
from morphogen.foundation.inpainting import widen
from morphogen.foundation.lora import ATTENTION, lora_layers
from morphogen.foundation.lora_files import DIFFUSERS, KOHYA, kohya_name
from morphogen.foundation.model import Foundation
from morphogen.generators.inpaint import model
from morphogen.generators.inpaint.config import InpaintConfig, inpaint_config
from morphogen.generators.inpaint.task import InpaintTask
from morphogen.generators.inpaint.zero_shot import zero_shot
from morphogen.sampling.jobs import Job
from morphogen.training.task import Draw, Progress
from small_foundations import perturb, small_foundation, small_tiny

PIPELINES: dict[str, Any] = {"sd": StableDiffusionInpaintPipeline, "sdxl": StableDiffusionXLInpaintPipeline}
RANK, ALPHA = 4, 6.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return phantom_dataset(tmp_path_factory.mktemp("data"), "mucosa", 3, 32, seed=2)


def settings(foundation: Path, **changes: object) -> InpaintConfig:
    values = {
        "foundation": str(foundation), "tuning": "lora", "lora_rank": RANK, "lora_alpha": ALPHA, "lr": 3e-2,
        "max_train_steps": 3, "train_batch_size": 4, "sampling_steps": 2, "normals": "regions", **changes,
    }  # fmt: skip
    return InpaintConfig(**values)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def trained(
    request: pytest.FixtureRequest, data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Path]:
    """Layout, a stock inpainting folder, and a run that trained updates of it."""
    root = tmp_path_factory.mktemp(request.param)
    made = widen(small_foundation(request.param, root / "t"))
    perturb(made.unet)
    made.save(root / "stock")
    return request.param, root / "stock", model.train(data, settings(root / "stock"), root / "run")


def output(unet: Any, foundation: Foundation) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 8, 8, generator=generator)
    with torch.no_grad():
        return predict(unet, x, torch.tensor([50, 800]), foundation.conditioning(["a photo of a polyp", ""]))


@pytest.mark.parametrize("file", [DIFFUSERS, KOHYA])
def test_stock_pipelines_load_either_file(file: str, trained: tuple[str, Path, Path]) -> None:
    kind, stock, run = trained
    ours = model.load(run).foundation
    pipeline = PIPELINES[kind].from_pretrained(stock)
    before = output(pipeline.unet, ours)
    pipeline.load_lora_weights(run / "final" / "lora", weight_name=file)
    theirs = output(pipeline.unet, ours)
    assert float((theirs - before).abs().max()) > 1e-2
    assert torch.allclose(output(ours.unet, ours), theirs, atol=1e-5)


def test_the_default_file_name_is_found(trained: tuple[str, Path, Path]) -> None:
    kind, stock, run = trained
    pipeline = PIPELINES[kind].from_pretrained(stock)
    pipeline.load_lora_weights(run / "final" / "lora")
    (config,) = pipeline.unet.peft_config.values()
    assert (config.r, config.lora_alpha) == (RANK, ALPHA)


def test_the_files_hold_the_updates_alone(trained: tuple[str, Path, Path]) -> None:
    kind, stock, run = trained
    final = run / "final"
    assert {path.name for path in final.iterdir()} == {"lora", "generator.json", "grammar.yaml"}
    a, b = load_file(final / "lora" / DIFFUSERS), load_file(final / "lora" / KOHYA)
    names = {key.removesuffix(".lora_A.weight").removeprefix("unet.") for key in a if key.endswith("lora_A.weight")}
    unet = Foundation.load(stock).unet
    assert names == {name for name, _ in unet.named_modules() if name.endswith(ATTENTION)}
    for name in names:
        other = kohya_name(name, 2 if kind == "sdxl" else None)
        assert torch.equal(a[f"unet.{name}.lora_A.weight"], b[f"{other}.lora_down.weight"])
        assert torch.equal(a[f"unet.{name}.lora_B.weight"], b[f"{other}.lora_up.weight"])
        assert b[f"{other}.alpha"].item() == ALPHA
    assert len(b) == 3 * len(names)
    with safe_open(final / "lora" / DIFFUSERS, "pt") as file:
        facts = json.loads(file.metadata()["lora_adapter_metadata"])
    assert facts == {"unet.r": RANK, "unet.lora_alpha": ALPHA, "unet.target_modules": list(ATTENTION)}


def test_the_weights_are_w_plus_alpha_over_r_b_a(trained: tuple[str, Path, Path]) -> None:
    _, stock, run = trained
    tensors = load_file(run / "final" / "lora" / DIFFUSERS)
    before, after = Foundation.load(stock).unet.state_dict(), model.load(run).foundation.unet.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        layer = name.removesuffix(".weight")
        update: Any = 0
        if f"unet.{layer}.lora_A.weight" in tensors:
            update = ALPHA / RANK * tensors[f"unet.{layer}.lora_B.weight"] @ tensors[f"unet.{layer}.lora_A.weight"]
        assert torch.allclose(after[name], value + update, atol=1e-5), name


def test_other_weights_are_refused(trained: tuple[str, Path, Path], tmp_path: Path) -> None:
    kind, stock, run = trained
    other = widen(small_foundation(kind, tmp_path / "t"))
    other.save(tmp_path / "other")
    info = run / "final" / "generator.json"
    text = info.read_text()
    try:
        info.write_text(text.replace(str(stock), str(tmp_path / "other")))
        with pytest.raises(InputError, match="holds low-rank updates of other weights than those in") as caught:
            model.load(run)
        assert "\n" not in str(caught.value)
        info.write_text(text.replace(str(stock), str(tmp_path / "gone")))
        with pytest.raises(InputError, match=r"of a foundation that is not there: .*gone: no such foundation"):
            model.load(run)
    finally:
        info.write_text(text)


def test_a_run_finds_its_foundation_from_elsewhere(
    trained: tuple[str, Path, Path], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it was trained on a folder of a relative name."""
    _, stock, _ = trained
    monkeypatch.chdir(stock.parent)
    run = model.train(data, settings(Path(stock.name)), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    sampler = model.load(run)
    assert sampler.config.foundation == str(stock)
    assert json.loads((run / "final" / "generator.json").read_text())["config"]["foundation"] == str(stock)


def test_a_damaged_file_is_refused(trained: tuple[str, Path, Path]) -> None:
    path = trained[2] / "final" / "lora" / DIFFUSERS
    content = path.read_bytes()
    try:
        tensors = load_file(path)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, path)
        with pytest.raises(InputError, match="does not hold the updates of this U-Net"):
            model.load(trained[2])
    finally:
        path.write_bytes(content)


def test_a_stopped_run_ends_with_the_same_updates(
    trained: tuple[str, Path, Path], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint holds the updates alone, and they are enough to go on from."""
    kind, stock, run = trained
    if kind == "sdxl":
        pytest.skip("a checkpoint knows no layout: once is enough")
    config = settings(stock, checkpointing_steps=2)

    def fail(*_: object) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(InpaintTask, "save", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            model.train(data, config, tmp_path / "run")
    second, third = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    shutil.rmtree(third)
    held = sum(file.stat().st_size for file in second.rglob("*.safetensors"))  # the updates and their moments
    assert held < (stock / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    model.train(data, config, tmp_path / "run")
    one, two = (load_file(r / "final" / "lora" / DIFFUSERS) for r in (run, tmp_path / "run"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_widened_foundation_is_written_whole(data: Dataset, tmp_path: Path) -> None:
    """The updates are merged, the first layer is trained whole, and the adapter's files lie beside."""
    small_tiny().save(tmp_path / "f")
    run = model.train(data, settings(tmp_path / "f"), tmp_path / "run")
    final = run / "final"
    ours = model.load(run).foundation
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(final)
    assert torch.equal(output(pipeline.unet, ours), output(ours.unet, ours))
    assert not lora_layers(ours.unet)
    old, new = Foundation.load(tmp_path / "f").unet, ours.unet
    assert float(new.conv_in.weight[:, 4:].abs().max()) > 0
    assert not torch.equal(old.conv_in.weight, new.conv_in.weight[:, :4])
    assert torch.equal(old.conv_out.weight, new.conv_out.weight)
    tensors = load_file(final / "lora" / DIFFUSERS)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    update = ALPHA / RANK * tensors[f"unet.{name}.lora_B.weight"] @ tensors[f"unet.{name}.lora_A.weight"]
    merged = old.get_submodule(name).weight + update  # type: ignore[operator]
    assert torch.allclose(new.get_submodule(name).weight, merged, atol=1e-5)  # type: ignore[arg-type]
    assert float(update.abs().max()) > 0


def test_nothing_changes_before_the_first_step(data: Dataset, tmp_path: Path) -> None:
    made = widen(small_foundation("sd", tmp_path))
    before = output(made.unet, made)
    training = model.training_set(made, Pairs(data, 32), settings(tmp_path), Grammar.load("polyp"))
    task = InpaintTask(made, training, settings(tmp_path), whole=False, widened=False)
    assert torch.equal(output(made.unet, made), before)
    trained = {name for name, p in made.unet.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained)
    phase = task.phases()[0]
    assert len(phase.parameters) == len(trained)
    batch = task.batch([Draw(k, k) for k in range(2)])
    sum(task.loss(batch, Progress(0, 1)).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None for p in phase.parameters)
    a = np.concatenate([layer.lora_A["default"].weight.detach().flatten() for layer in lora_layers(made.unet).values()])
    assert abs(a.std() - 1 / RANK) < 0.02  # A is drawn from a normal distribution, B is zero


@pytest.mark.parametrize(
    "words", ["", "+ema_decay=0.9+weight_decay=0.5", "+tuning=full+ema_decay=0.9+weight_decay=0.5"]
)
def test_at_rate_0_a_run_paints_as_the_untouched_foundation(
    words: str, trained: tuple[str, Path, Path], data: Dataset, tmp_path: Path
) -> None:
    """So that a study, which trains its generator, has zero-shot painting too (runs/syndiff_sdxl.sh)."""
    kind, stock, _ = trained
    preset = {"sd": "sd15", "sdxl": "sdxl"}[kind] + f"+lora+lr=0+max_train_steps=1+train_batch_size=1{words}"
    changes = {"foundation": str(stock), "resolution": 0, "sampling_steps": 3, "normals": "regions"}
    run = model.train(data, inpaint_config(preset, **changes), tmp_path / "run")
    zero = zero_shot(str(stock), preset="sampling_steps=3")
    weights = model.load(run).foundation.unet.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in zero.foundation.unet.state_dict().items())
    mask = np.zeros((40, 50), dtype=np.int64)
    mask[10:25, 12:30] = 1
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    job = Job("a_00", 7, mask=mask, image=image, prompt="a photo of a polyp")
    ours, theirs = (sampler.sample([job])[0].image for sampler in (model.load(run), zero))
    assert np.array_equal(ours, theirs)
    assert not np.array_equal(ours, image)


def test_names_of_sdxl_are_those_of_its_original_layout() -> None:
    """Known ones: attention stands in input blocks 4, 5, 7, 8 and output blocks 0 to 5 of SDXL."""
    tail = "transformer_blocks.0.attn1.to_q"
    known = {
        "down_blocks.1.attentions.0": "input_blocks_4_1", "down_blocks.1.attentions.1": "input_blocks_5_1",
        "down_blocks.2.attentions.0": "input_blocks_7_1", "down_blocks.2.attentions.1": "input_blocks_8_1",
        "mid_block.attentions.0": "middle_block_1", "up_blocks.0.attentions.0": "output_blocks_0_1",
        "up_blocks.0.attentions.2": "output_blocks_2_1", "up_blocks.1.attentions.2": "output_blocks_5_1",
    }  # fmt: skip
    for name, block in known.items():
        assert kohya_name(f"{name}.{tail}", 2) == f"lora_unet_{block}_transformer_blocks_0_attn1_to_q"
    plain = kohya_name("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0", None)
    assert plain == "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_out_0"
    assert re.fullmatch(r"[a-z0-9_]+", plain)
