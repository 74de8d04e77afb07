"""The encoders MiT and PVTv2: their values, and their weights in every layout that is published."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.segmenters import build
from morphogen.segmenters.pretrained import FILE
from morphogen.segmenters.pyramid import MIT, PVT_V2, mix_transformer, pyramid_transformer

State = dict[str, Tensor]
CHANNELS, DEPTH, HEADS, REDUCTIONS = (32, 64, 160, 256), 2, (1, 2, 5, 8), (8, 4, 2, 1)
RATIOS = {"mit": (4, 4, 4, 4), "pvt_v2": (8, 8, 4, 4)}
MAKE: dict[str, Callable[[str, str], nn.Module]] = {"mit": mix_transformer, "pvt_v2": pyramid_transformer}


def authors_state(kind: str) -> State:
    """A random checkpoint of size b0 with the names and shapes of the authors' files, classifier and all."""
    shapes: dict[str, tuple[int, ...]] = {"head.weight": (1000, 256), "head.bias": (1000,)}
    for i, (inputs, c) in enumerate(pairwise((3, *CHANNELS))):
        patch, wide, r = (7 if i == 0 else 3), CHANNELS[i] * RATIOS[kind][i], REDUCTIONS[i]
        shapes |= {f"patch_embed{i + 1}.proj.weight": (c, inputs, patch, patch), f"patch_embed{i + 1}.proj.bias": (c,)}
        norms = [f"patch_embed{i + 1}.norm", f"norm{i + 1}"]
        for j in range(DEPTH):
            block = f"block{i + 1}.{j}"
            norms += [f"{block}.norm1", f"{block}.norm2"]
            for name, shape in {
                "attn.q": (c, c),
                "attn.kv": (2 * c, c),
                "attn.proj": (c, c),
                "mlp.fc1": (wide, c),
                "mlp.dwconv.dwconv": (wide, 1, 3, 3),
                "mlp.fc2": (c, wide),
            }.items():
                shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
            if r > 1:
                norms.append(f"{block}.attn.norm")
                shapes |= {f"{block}.attn.sr.weight": (c, c, r, r), f"{block}.attn.sr.bias": (c,)}
        shapes |= {f"{norm}.{part}": (c,) for norm in norms for part in ("weight", "bias")}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        scale = 0.3 if len(shape) == 1 else torch.tensor(shape[1:]).prod().item() ** -0.5
        shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        state[name] = torch.randn(shape, generator=generator) * scale + shift
    return state


def literal_features(state: State, image: Tensor, kind: str) -> list[Tensor]:
    """The published encoder as a function of the authors' checkpoint, in float64."""
    s = {name: value.double() for name, value in state.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        return (
            centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt() * s[f"{name}.weight"]
            + s[f"{name}.bias"]
        )

    def attention(x: Tensor, name: str, heads: int, reduction: int, grid: tuple[int, int]) -> Tensor:
        source = x
        if reduction > 1:
            maps = x.transpose(1, 2).unflatten(2, grid)
            maps = F.conv2d(maps, s[f"{name}.sr.weight"], s[f"{name}.sr.bias"], stride=reduction)
            source = norm(maps.flatten(2).transpose(1, 2), f"{name}.norm", 1e-5)
        size = x.shape[-1] // heads
        q, kv, out = linear(x, f"{name}.q"), linear(source, f"{name}.kv"), []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            k, v = kv[..., : heads * size][..., part], kv[..., heads * size :][..., part]
            out.append((q[..., part] @ k.transpose(1, 2) / size**0.5).softmax(dim=-1) @ v)
        return linear(torch.cat(out, dim=-1), f"{name}.proj")

    mean, std = (torch.tensor(v).view(1, 3, 1, 1).double() for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, levels = ((image.double() + 1) / 2 - mean) / std, []
    for i in range(4):
        patch = f"patch_embed{i + 1}"
        kernel = 7 if i == 0 else 3
        x = F.conv2d(x, s[f"{patch}.proj.weight"], s[f"{patch}.proj.bias"], 4 if i == 0 else 2, kernel // 2)
        grid = (x.shape[2], x.shape[3])
        tokens = norm(x.flatten(2).transpose(1, 2), f"{patch}.norm", 1e-5)
        for j in range(DEPTH):
            block = f"block{i + 1}.{j}"
            tokens = tokens + attention(
                norm(tokens, f"{block}.norm1", 1e-6), f"{block}.attn", HEADS[i], REDUCTIONS[i], grid
            )
            hidden = linear(norm(tokens, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1")
            depthwise = s[f"{block}.mlp.dwconv.dwconv.weight"]
            maps = hidden.transpose(1, 2).unflatten(2, grid)
            maps = F.conv2d(maps, depthwise, s[f"{block}.mlp.dwconv.dwconv.bias"], padding=1, groups=len(depthwise))
            hidden = maps.flatten(2).transpose(1, 2)
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            tokens = tokens + linear(hidden, f"{block}.mlp.fc2")
        x = norm(tokens, f"norm{i + 1}", 1e-6).transpose(1, 2).unflatten(2, grid)
        levels.append(x)
    return levels


def hub_state(kind: str, state: State) -> State:
    """The same checkpoint under the names of the hub's files, in which keys and values are two tensors."""
    found: State = {}
    for key, tensor in state.items():
        names = re.sub(r"^head", "classifier", key)
        if ".attn.kv." in key:
            for part, half in zip(("key", "value"), tensor.chunk(2), strict=True):
                found[hub_name(kind, names.replace("attn.kv", f"attn.{part}"))] = half.clone()
        else:
            found[hub_name(kind, names.replace("attn.q.", "attn.query."))] = tensor
    return found


def hub_name(kind: str, key: str) -> str:
    if key.startswith("classifier"):
        return key
    part, number, rest = re.fullmatch(r"(patch_embed|block|norm)(\d)\.(.+)", key).groups()
    i = int(number) - 1
    rest = re.sub(r"norm([12])\.", r"layer_norm_\1.", rest).replace("fc", "dense")
    rest = rest.replace("attn.norm", "attn.layer_norm")
    if kind == "mit":
        rest = rest.replace("attn.proj", "attention.output.dense").replace("attn.", "attention.self.")
        names = {"patch_embed": f"patch_embeddings.{i}.", "block": f"block.{i}.", "norm": f"layer_norm.{i}."}
        prefix = "segformer.encoder."
    else:
        rest = rest.replace("attn.sr", "attention.spatial_reduction").replace("attn.", "attention.")
        names = {"patch_embed": "patch_embedding.", "block": "blocks.", "norm": "layer_norm."}
        prefix = f"pvt_v2.encoder.layers.{i}."
    return prefix + names[part] + (rest.replace("norm.", "layer_norm.") if part == "patch_embed" else rest)


KINDS = pytest.mark.parametrize("kind", ["mit", "pvt_v2"])


@KINDS
@torch.no_grad()
def test_values_from_the_authors_file_are_those_of_the_publication(kind: str, tmp_path: Path) -> None:
    state, image = authors_state(kind), torch.rand(2, 3, 64, 96) * 2 - 1
    save_file(state, tmp_path / FILE)
    encoder = MAKE[kind]("b0", str(tmp_path)).eval().double()
    levels = encoder(image.double())
    assert [tuple(level.shape[1:]) for level in levels] == [(32, 16, 24), (64, 8, 12), (160, 4, 6), (256, 2, 3)]
    for level, wanted in zip(levels, literal_features(state, image, kind), strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-6, atol=1e-6)


@KINDS
def test_the_hubs_file_holds_the_same_under_other_names(kind: str, tmp_path: Path) -> None:
    state = authors_state(kind)
    save_file(state, tmp_path / "authors.safetensors")
    save_file(hub_state(kind, state), tmp_path / "hub.safetensors")
    first, second = (MAKE[kind]("b0", str(tmp_path / f"{name}.safetensors")) for name in ("authors", "hub"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "mit",
            [
                "segformer.encoder.patch_embeddings.0.proj.weight",
                "segformer.encoder.patch_embeddings.0.layer_norm.bias",
                "segformer.encoder.block.2.1.layer_norm_1.weight",
                "segformer.encoder.block.0.0.attention.self.sr.weight",
                "segformer.encoder.block.0.0.attention.self.layer_norm.weight",
                "segformer.encoder.block.3.1.attention.self.value.bias",
                "segformer.encoder.block.0.1.attention.output.dense.weight",
                "segformer.encoder.block.1.0.mlp.dwconv.dwconv.weight",
                "segformer.encoder.block.1.0.mlp.dense2.weight",
                "segformer.encoder.layer_norm.3.weight",
                "classifier.weight",
            ],
        ),
        (
            "pvt_v2",
            [
                "pvt_v2.encoder.layers.0.patch_embedding.layer_norm.bias",
                "pvt_v2.encoder.layers.2.blocks.1.layer_norm_2.weight",
                "pvt_v2.encoder.layers.0.blocks.0.attention.spatial_reduction.weight",
                "pvt_v2.encoder.layers.0.blocks.0.attention.layer_norm.weight",
                "pvt_v2.encoder.layers.3.blocks.1.attention.value.bias",
                "pvt_v2.encoder.layers.0.blocks.1.attention.proj.weight",
                "pvt_v2.encoder.layers.1.blocks.0.mlp.dense1.weight",
                "pvt_v2.encoder.layers.3.layer_norm.weight",
                "classifier.weight",
            ],
        ),
    ],
)
def test_the_synthetic_file_has_the_hubs_names(kind: str, names: list[str]) -> None:
    assert set(names) <= set(hub_state(kind, authors_state(kind)))


@KINDS
def test_transformers_reads_the_hubs_file_alike(kind: str, tmp_path: Path) -> None:
    """Its own conversion of old names is the judge of ours."""
    from transformers import PvtV2Config, PvtV2Model, SegformerConfig, SegformerModel

    save_file(hub_state(kind, authors_state(kind)), tmp_path / FILE, metadata={"format": "pt"})
    (SegformerConfig() if kind == "mit" else PvtV2Config()).save_pretrained(tmp_path)
    model = (SegformerModel if kind == "mit" else PvtV2Model).from_pretrained(tmp_path, local_files_only=True)
    theirs = {name.replace("encoder.layers.", "stages."): value for name, value in model.state_dict().items()}
    ours = MAKE[kind]("b0", str(tmp_path)).state_dict()
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@KINDS
def test_todays_layout_of_transformers_is_read_too(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = MAKE[kind]("b0", "none")
    prefix = {"mit": ("stages.", "segformer.stages."), "pvt_v2": ("stages.", "pvt_v2.encoder.layers.")}[kind]
    save_file({name.replace(*prefix, 1): value for name, value in first.state_dict().items()}, tmp_path / FILE)
    second = MAKE[kind]("b0", str(tmp_path))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@KINDS
def test_another_size_is_refused(kind: str, tmp_path: Path) -> None:
    save_file(authors_state(kind), tmp_path / FILE)
    with pytest.raises(InputError, match=r"is not this encoder \(stages.0.patch_embedding.*\(32, 3, 7, 7\)"):
        MAKE[kind]("b2", str(tmp_path))


def test_one_encoder_is_not_taken_for_the_other(tmp_path: Path) -> None:
    """Their names are the same; the width of the feed-forward layers tells them apart."""
    save_file(authors_state("mit"), tmp_path / FILE)
    with pytest.raises(InputError, match="is not this encoder"):
        pyramid_transformer("b0", str(tmp_path))


def test_every_published_encoder_is_pinned_to_a_commit() -> None:
    for size in (*MIT.values(), *PVT_V2.values()):
        assert re.fullmatch(r"\w+/[\w-]+@[0-9a-f]{40}", size.weights)


@pytest.mark.parametrize(("name", "hub_id"), [("segformer", "nvidia/mit-b2@"), ("polyp-pvt", "OpenGVLab/pvt_v2_b2@")])
def test_without_a_network_the_line_names_the_id_and_both_ways_out(
    name: str, hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=rf"{hub_id}.*cannot be reached.*weights=FOLDER.*weights=none"):
        build(name, 2)


@torch.no_grad()
def test_the_random_start_is_the_authors() -> None:
    torch.manual_seed(0)
    for encoder in (mix_transformer("b0", "none"), pyramid_transformer("b0", "none")):
        for module in encoder.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                assert module.bias is None or not module.bias.any()
                fan_out = module.weight[0, 0].numel() * len(module.weight)
                fan_out //= getattr(module, "groups", 1)
                wanted = 0.02 if isinstance(module, nn.Linear) else (2 / fan_out) ** 0.5
                assert module.weight.std().item() == pytest.approx(wanted, rel=0.15)


def test_stochastic_depth_grows_to_a_tenth() -> None:
    for encoder in (mix_transformer("b0", "none"), pyramid_transformer("b0", "none")):
        rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in encoder.stages for block in stage.blocks]
        assert rates == pytest.approx([0.1 * i / 7 for i in range(8)])
