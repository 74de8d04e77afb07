"""Foreign checkpoints: the authors' merged file, plain ControlNet files and folders, and what is refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel
from safetensors.torch import save_file
from torch import Tensor

from morphogen.cli import main
from morphogen.errors import InputError
from morphogen.foundation.halves import DecoderHalf
from morphogen.foundation.model import Foundation
from morphogen.generators.siamese import model
from morphogen.generators.siamese.config import SiameseConfig, siamese_config
from morphogen.generators.siamese.control import HintedControlNet
from morphogen.generators.siamese.import_weights import import_weights
from morphogen.generators.siamese.sampling import sample_images
from morphogen.generators.siamese.step import Networks
from small_foundations import perturb, small_foundation

CLASSES, PROMPT = ("background", "lesion"), "a photo of a polyp"
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
WHOLE = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}  # fmt: skip
DENSE = (
    "initial_conv", "layer1", "conv_before_res2", "layer2", "patch_merge1", "conv_before_res3", "layer3",
    "patch_merge2", "conv_before_res4", "layer4", "patch_merge3", "conv_before_res5", "layer5",
)  # fmt: skip


def ldm_name(name: str, attention_above: frozenset[int]) -> str:
    """The name of a diffusers tensor in the layout of the LDM repositories, for two layers a level."""
    module, _, leaf = name.rpartition(".")
    if module in WHOLE:
        return f"{WHOLE[module]}.{leaf}"
    if found := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)", module):
        return f"input_hint_block.{2 * int(found[1]) + 2}.{leaf}"
    if found := re.fullmatch(r"controlnet_cond_embedding\.(\d+)(.*)", module):
        stage = int(found[1])
        inner = found[2].replace("first", "conv1").replace("second", "conv2")
        return f"input_hint_block.1.{leaf}" if stage == 13 else f"input_hint_block.0.{DENSE[stage]}{inner}.{leaf}"
    if found := re.fullmatch(r"controlnet_down_blocks\.(\d+)", module):
        return f"zero_convs.{found[1]}.0.{leaf}"
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)(.*)", module):
        place = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{place}{inside(found[1], found[3])}.{leaf}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)(.*)", module)
    assert found, name
    level, kind, j, rest = int(found[2]), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op.{leaf}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{2 if level in attention_above else 1}.conv.{leaf}"
    block = f"input_blocks.{3 * level + j + 1}" if found[1] == "down" else f"output_blocks.{3 * level + j}"
    return f"{block}.{1 if kind == 'attentions' else 0}{inside(kind, rest)}.{leaf}"


def inside(kind: str, rest: str) -> str:
    return rest if kind == "attentions" else f".{RESNET[rest.removeprefix('.')]}"


def ldm(module: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    above = frozenset(
        int(found[1]) for name in module.state_dict() if (found := re.match(r"up_blocks\.(\d)\.attentions", name))
    )
    return {prefix + ldm_name(name, above): value.contiguous() for name, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion 1.x of factor 8."""
    folder = tmp_path_factory.mktemp("base")
    made = small_foundation("sd", folder / "t")
    torch.manual_seed(1)
    made.vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 16), latent_channels=4, layers_per_block=1, norm_num_groups=8, sample_size=64,
    )  # fmt: skip
    made.save(folder / "f")
    return folder / "f"


def trained(base: Path, hint: str) -> Networks:
    """Networks as somebody else has trained them: every weight of the ControlNet and of the decoder moved."""
    made = Foundation.load(base)
    controlnet = HintedControlNet.for_foundation(made, hint, hint_width=16).eval()
    perturb(controlnet)
    perturb(made.unet.up_blocks, seed=1)
    perturb(made.unet.conv_out, seed=2)
    return Networks(made, controlnet, DecoderHalf(made.unet))


def config(base: Path) -> SiameseConfig:
    return SiameseConfig(foundation=str(base), sampling_steps=2, resolution=64, solver="ddim")


def same_samples(run: Path, nets: Networks) -> bool:
    masks = np.zeros((2, 64, 64), dtype=np.int64)
    masks[0, 8:40, 8:40] = 1
    sampler = model.load(run)
    ours = sample_images(sampler.nets, masks, 2, [PROMPT] * 2, [3, 4], sampler.config)
    theirs = sample_images(nets, masks, 2, [PROMPT] * 2, [3, 4], sampler.config)
    assert not np.array_equal(ours[0], ours[1])
    return bool(np.array_equal(ours, theirs))


@pytest.mark.parametrize("hint", ["dense", "plain"])
@pytest.mark.parametrize("kind", ["merged_pytorch_model.pth", "lightning.ckpt", "merged.safetensors"])
def test_the_merged_checkpoint_paints_as_its_networks_do(hint: str, kind: str, base: Path, tmp_path: Path) -> None:
    nets = trained(base, hint)
    tensors = ldm(nets.controlnet, "control_model.") | ldm(nets.foundation.unet, "model.diffusion_model.")
    tensors["first_stage_model.quant_conv.weight"] = torch.zeros(1)  # the frozen rest of the pipeline is there too
    if kind.endswith("safetensors"):
        save_file(tensors, tmp_path / kind)
    else:
        torch.save({"state_dict": tensors} if "lightning" in kind else tensors, tmp_path / kind)
    run = import_weights(tmp_path / kind, config(base), CLASSES, PROMPT, tmp_path / "run")
    assert same_samples(run, nets)
    assert model.load(run).config.hint == hint
    before = (run / "final" / "generator.json").stat().st_mtime_ns
    assert import_weights(tmp_path / kind, config(base), CLASSES, PROMPT, tmp_path / "run") == run
    assert (run / "final" / "generator.json").stat().st_mtime_ns == before


def test_a_stock_controlnet_folder(base: Path, tmp_path: Path) -> None:
    made = Foundation.load(base)
    stock = ControlNetModel.from_unet(made.unet, conditioning_embedding_out_channels=(8, 16, 24, 32)).eval()
    perturb(stock)
    stock.save_pretrained(tmp_path / "stock")
    run = import_weights(tmp_path / "stock", config(base), CLASSES, PROMPT, tmp_path / "run")
    imported = model.load(run).nets.controlnet.state_dict()
    assert imported.keys() == stock.state_dict().keys()
    assert all(torch.equal(value, imported[name]) for name, value in stock.state_dict().items())
    assert model.load(run).config.hint == "plain"


def test_a_controlnet_file_without_the_pipeline(base: Path, tmp_path: Path) -> None:
    nets = trained(base, "plain")
    nets = Networks(Foundation.load(base), nets.controlnet, DecoderHalf(Foundation.load(base).unet))
    save_file(ldm(nets.controlnet, ""), tmp_path / "control.safetensors")
    run = import_weights(tmp_path / "control.safetensors", config(base), CLASSES, PROMPT, tmp_path / "run")
    assert same_samples(run, nets)


class _Opens:
    """Pickled, it would make a folder on loading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


class TestRefusals:
    def tensors(self, base: Path) -> dict[str, Tensor]:
        return ldm(trained(base, "dense").controlnet, "control_model.")

    def refused(self, source: Path, base: Path, out: Path, match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            import_weights(source, config(base), CLASSES, PROMPT, out)
        assert "\n" not in str(caught.value)
        assert not out.exists()

    def test_code_in_the_file_does_not_run(self, base: Path, tmp_path: Path) -> None:
        torch.save({"state_dict": _Opens(tmp_path / "made")}, tmp_path / "a.pth")
        self.refused(tmp_path / "a.pth", base, tmp_path / "run", r"a.pth: holds more than tensors")
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
    def test_a_text_file(self, name: str, base: Path, tmp_path: Path) -> None:
        (tmp_path / name).write_text("no weights")
        self.refused(tmp_path / name, base, tmp_path / "run", re.escape(name))

    def test_nothing_there(self, base: Path, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.pth", base, tmp_path / "run", "none.pth: does not exist")
        (tmp_path / "empty").mkdir()
        self.refused(tmp_path / "empty", base, tmp_path / "run", "empty: holds no diffusion_pytorch_model.safetensors")

    def test_another_kind_of_checkpoint(self, base: Path, tmp_path: Path) -> None:
        torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pth")
        self.refused(tmp_path / "a.pth", base, tmp_path / "run", "holds no ControlNet")

    def test_a_missing_an_unknown_and_a_wrong_tensor(self, base: Path, tmp_path: Path) -> None:
        tensors = self.tensors(base)
        lacking = {k: v for k, v in tensors.items() if "layer5.conv2.weight" not in k}
        torch.save(lacking, tmp_path / "a.pth")
        self.refused(tmp_path / "a.pth", base, tmp_path / "run", r"a.pth: lacks .*12.second.weight")
        torch.save(tensors | {"control_model.input_hint_block.0.layer9.bias": torch.zeros(1)}, tmp_path / "a.pth")
        self.refused(tmp_path / "a.pth", base, tmp_path / "run", r"holds .*layer9.bias, which .* has no place for")
        torch.save(tensors | {"control_model.time_embed.0.bias": torch.zeros(3)}, tmp_path / "a.pth")
        self.refused(tmp_path / "a.pth", base, tmp_path / "run", r"linear_1.bias is \(3,\)")

    def test_another_run_stays(self, base: Path, tmp_path: Path) -> None:
        torch.save(self.tensors(base), tmp_path / "a.pth")
        run = import_weights(tmp_path / "a.pth", config(base), CLASSES, PROMPT, tmp_path / "run")
        torch.save(self.tensors(base) | {"control_model.time_embed.0.bias": torch.zeros(64)}, tmp_path / "b.pth")
        with pytest.raises(InputError, match="holds a run with other settings"):
            import_weights(tmp_path / "b.pth", config(base), CLASSES, PROMPT, run)


def test_the_verb(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nets = trained(base, "dense")
    tensors = ldm(nets.controlnet, "control_model.") | ldm(nets.foundation.unet, "model.diffusion_model.")
    torch.save(tensors, tmp_path / "merged.pth")
    words = ["import-weights", str(tmp_path / "merged.pth"), "--preset", f"sd15+{base}", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    kept = json.loads((tmp_path / "run" / "final" / "generator.json").read_text())["config"]
    assert (kept["solver"], kept["sampling_steps"], kept["guidance"]) == ("ddim", 50, 9.0)
    assert kept["resolution"] == siamese_config("sd15").resolution
    assert main([*words[:1], str(tmp_path / "none.pth"), *words[2:]]) == 2
    assert "none.pth: does not exist" in capsys.readouterr().err
