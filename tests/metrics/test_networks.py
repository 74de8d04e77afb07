"""Extractors of the hub, on small models in the published format: parity with transformers, and what is refused."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from morphogen.errors import InputError
from morphogen.metrics import networks, weights
from morphogen.metrics.features import EXTRACTORS, Extractor, extract, prepare, resize_bicubic, stream
from morphogen.metrics.networks import available, load_network, published_positions, require
from small_vision import ROWS, small_clip, small_dino

CLIP, DINO = ROWS["clip-b32"], ROWS["dinov2-l14"]
HUB = [spec for spec in EXTRACTORS.values() if not spec.packaged]


def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    small_clip().save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_every_row_is_pinned_and_its_metric_can_be_normalised() -> None:
    for name, spec in EXTRACTORS.items():
        assert spec.id == name
        assert re.fullmatch("[0-9a-f]{64}", spec.sha256)
        assert spec.packaged or re.fullmatch(r"[\w-]+/[\w.-]+@([0-9a-f]{40}|refs/pr/\d+)", spec.source)
        assert min(*spec.std, *spec.mean) > 30  # 8-bit values, not those in [0, 1]


def test_rows_are_as_published() -> None:
    """(input side, crop, features, mean and deviation of 8-bit values): CLIP, and DINOv2 as FD-DINOv2 takes it."""
    clip = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    imagenet = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    published = {
        "clip-l14-336": (336, True, 768, clip),
        "clip-b32": (224, True, 512, clip),
        "dinov2-l14": (224, False, 1024, imagenet),
    }
    assert set(published) == {spec.id for spec in HUB}
    for spec in HUB:
        size, crop, dim, (mean, std) = published[spec.id]
        assert (spec.size, spec.crop, spec.dim, spec.resize) == (size, crop, dim, "bicubic")
        np.testing.assert_allclose([spec.mean, spec.std], np.multiply(255, [mean, std]))


@pytest.mark.parametrize("size", [(24, 24), (40, 40), (31, 50), (57, 26), (11, 9)])
def test_clip_images_are_prepared_as_transformers_does(size: tuple[int, int]) -> None:
    (image,) = images(size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    theirs = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(prepare(image, CLIP), theirs, atol=1e-5)


@pytest.mark.parametrize("size", [(56, 56), (90, 41), (20, 33)])
def test_dino_images_are_stretched_as_torchvision_stretches_pillows(size: tuple[int, int]) -> None:
    """Stein et al. resize both sides to 224 px; transformers' own processor would cut the middle out of 256 px."""
    (image,) = images(size)
    processor = BitImageProcessorPil(
        do_center_crop=False,
        size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    theirs = processor(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(prepare(image, DINO), theirs, atol=1e-5)


def test_the_crop_is_the_middle() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 200
    assert (resize_bicubic(image, 20, crop=True) == 200).all()
    assert resize_bicubic(image, 20, crop=False)[10, 0, 0] == 0


def test_clip_features_are_the_models_image_embeddings(clip: Path) -> None:
    pictures = images((24, 24), (40, 30), (25, 70))
    network = load_network(CLIP, folder=clip)
    found = np.concatenate(list(stream(pictures, network, batch_size=2)))
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    pixels = processor([Image.fromarray(p) for p in pictures], return_tensors="pt")["pixel_values"]
    model = small_clip()
    with torch.inference_mode():
        wanted = model.visual_projection(model.vision_model(pixels).pooler_output)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert network.provenance["published"] is False
    assert network.sha256 == hashlib.sha256((clip / "model.safetensors").read_bytes()).hexdigest()


def test_dino_features_are_the_class_token(tmp_path: Path) -> None:
    small_dino(56).save_pretrained(tmp_path)  # as many patches as the table has: nothing is interpolated
    (image,) = images((70, 61))
    found = extract_one(image, DINO, tmp_path)
    with torch.inference_mode():
        wanted = small_dino(56)(torch.from_numpy(prepare(image, DINO))[None]).pooler_output
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def extract_one(image: np.ndarray, spec: Extractor, folder: Path) -> np.ndarray:
    return next(stream([image], load_network(spec, folder=folder)))


def cubic(x: float, a: float = -0.75) -> float:
    """Keys' kernel with torch's a."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def literal_positions(grid: np.ndarray, side: int) -> np.ndarray:
    """(M, M, D) -> (side, side, D): output i reads (i + 0.5) * M / (side + 0.1) - 0.5, sixteen neighbours."""
    known = len(grid)
    out = np.zeros((side, side, grid.shape[2]))
    for i, j in np.ndindex(side, side):
        y, x = ((k + 0.5) * known / (side + 0.1) - 0.5 for k in (i, j))
        for v in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
            for u in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                value = grid[np.clip(v, 0, known - 1), np.clip(u, 0, known - 1)]
                out[i, j] += cubic(y - v) * cubic(x - u) * value
    return out


@pytest.mark.parametrize(("known", "side"), [(5, 3), (3, 4), (37, 16)])
def test_positions_are_interpolated_as_published(known: int, side: int) -> None:
    table = torch.randn(1, 1 + known * known, 3, generator=torch.Generator().manual_seed(0))
    found = published_positions(table, side)
    assert torch.equal(found[:, :1], table[:, :1])
    wanted = literal_positions(table[0, 1:].reshape(known, known, 3).double().numpy(), side)
    np.testing.assert_allclose(found[0, 1:].reshape(side, side, 3).numpy(), wanted, atol=1e-4)


def test_the_network_uses_these_positions(tmp_path: Path) -> None:
    small_dino(70).save_pretrained(tmp_path)
    (image,) = images((60, 60))
    model = small_dino(70)
    table = model.embeddings.position_embeddings
    with torch.inference_mode():
        own = model(torch.from_numpy(prepare(image, DINO))[None]).pooler_output.numpy()
        table.data = published_positions(table.data, 4)
        wanted = model(torch.from_numpy(prepare(image, DINO))[None]).pooler_output.numpy()
    found = extract_one(image, DINO, tmp_path)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(found - own).max() > 1e-4  # what transformers interpolates is something else


def test_lite0_is_the_classifier_before_its_last_layer() -> None:
    if not weights.available("lite0"):
        pytest.skip("the weights of EfficientNet-Lite0 are not installed")
    from morphogen.metrics.lite0 import pretrained_lite0

    pictures = images((224, 224), (64, 80))
    found = extract(pictures, "lite0")
    assert found.shape == (2, 1280)
    pixels = (torch.from_numpy(pictures[0]).permute(2, 0, 1)[None].float() - 127) / 128
    net = pretrained_lite0()
    with torch.inference_mode():
        np.testing.assert_allclose(found[0], net.embed(pixels)[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(net._fc(torch.from_numpy(found[:1]).float()), net(pixels), atol=1e-3)


@pytest.mark.parametrize("spec", HUB, ids=lambda spec: spec.id)
def test_offline_one_line_names_the_id_and_the_way_out(
    spec: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not available(spec)
    with pytest.raises(InputError) as caught:
        extract(images((8, 8)), spec.id)
    line = str(caught.value)
    assert "\n" not in line
    assert spec.source in line
    assert f"--features-folder {spec.id}=FOLDER" in line


@pytest.mark.parametrize("spec", HUB, ids=lambda spec: spec.id)
def test_the_hubs_cache_is_found_and_its_file_must_be_the_published_one(
    spec: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, _, revision = spec.source.partition("@")
    root = tmp_path / f"models--{repository.replace('/', '--')}"
    commit = revision if "/" not in revision else "ab" * 20
    (root / "refs" / revision).parent.mkdir(parents=True)
    (root / "refs" / revision).write_text(commit)
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True)
    for name in networks.FILES:
        (folder / name).write_text("{}")
    assert available(spec)
    require(spec)
    with pytest.raises(InputError, match=rf"model\.safetensors: is not the file of {repository}"):
        load_network(spec)


def test_a_folder_that_is_not_whole(clip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = clip / "model.safetensors"
    tensors = load_file(file)
    with pytest.raises(InputError, match=r"is another model than dinov2-l14|is not a whole model|lacks"):
        load_network(DINO, folder=clip)
    with pytest.raises(InputError, match="is another model than clip-b32, with 6 features"):
        load_network(EXTRACTORS["clip-b32"], folder=clip)
    save_file({k: v for k, v in tensors.items() if k != "visual_projection.weight"}, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks visual_projection\.weight"):
        load_network(CLIP, folder=clip)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match="is not a whole model in safetensors") as caught:
        load_network(CLIP, folder=clip)
    assert "\n" not in str(caught.value)
    shutil.move(file, clip / "pytorch_model.bin")  # pickles are not read
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        load_network(CLIP, folder=clip)
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_network(CLIP, folder=tmp_path / "nowhere")


def test_a_packaged_extractor_has_no_folder(tmp_path: Path) -> None:
    if not weights.available("inception"):
        pytest.skip("the weights inception are not installed")
    with pytest.raises(InputError, match="--features-folder inception"):
        extract(images((8, 8)), "inception", folder=tmp_path)
