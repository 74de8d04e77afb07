"""Feature extraction: the published input convention, the resize, and batching."""

import numpy as np
import pytest
import torch

from morphogen.errors import InputError
from morphogen.metrics import features, weights
from morphogen.metrics.features import EXTRACTORS, extract, prepare, resize_bilinear

INCEPTION = EXTRACTORS["inception"]


def literal_resize(image: np.ndarray, size: int) -> np.ndarray:
    height, width, _ = image.shape
    out = np.zeros((size, size, image.shape[2]))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b = y - top, x - left
            above = image[top, left] * (1 - b) + image[top, right] * b
            below = image[bottom, left] * (1 - b) + image[bottom, right] * b
            out[i, j] = above * (1 - a) + below * a
    return out


@pytest.mark.parametrize("shape", [(5, 8, 3), (30, 21, 3), (13, 13, 3)])
def test_resize_matches_the_literal_statement(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(resize_bilinear(image, 13), literal_resize(image.astype(float), 13), atol=1e-9)


def test_resize_matches_a_sampling_grid() -> None:
    """The same map in another library: grid_sample with pixel centres at whole numbers."""
    image = np.random.default_rng(1).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    y, x = np.meshgrid(np.arange(31) * 9 / 31, np.arange(31) * 14 / 31, indexing="ij")
    grid = torch.from_numpy(np.stack([2 * x / 13 - 1, 2 * y / 8 - 1], -1))[None]
    pixels = torch.from_numpy(image.transpose(2, 0, 1).astype(float))[None]
    expected = torch.nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=True)[0]
    np.testing.assert_allclose(resize_bilinear(image, 31), expected.numpy().transpose(1, 2, 0), atol=1e-6)


def test_prepare_gives_the_published_range() -> None:
    image = np.zeros((299, 299, 3), dtype=np.uint8)
    image[..., 1], image[..., 2] = 128, 255
    pixels = prepare(image, INCEPTION)
    assert pixels.shape == (3, 299, 299)
    assert pixels.dtype == np.float32
    assert [float(channel.mean()) for channel in pixels] == [-1, 0, 0.9921875]


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_prepare_refuses(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        prepare(bad, INCEPTION)


def test_batches_keep_order_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert len(x) <= 3
            return x.mean(dim=(1, 2, 3), keepdim=False)[:, None].expand(-1, 2048)

    monkeypatch.setattr(weights, "load_member", lambda _: Mean())
    images = (np.full((4 + i, 5, 3), 10 * i, dtype=np.uint8) for i in range(7))
    result = extract(images, batch_size=3)
    assert result.shape == (7, 2048)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result[:, 0], (10 * np.arange(7) - 128) / 128, rtol=1e-6)
    assert extract([], batch_size=3).shape == (0, 2048)


def test_features_that_are_not_finite_name_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    class Third(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = torch.ones(len(x), 2048)
            rows[x[:, 0, 0, 0] == (7 - 128) / 128, 5] = float("nan")
            return rows

    monkeypatch.setattr(weights, "load_member", lambda _: Third())
    images = [np.full((4, 5, 3), value, dtype=np.uint8) for value in (1, 2, 3, 7, 5)]
    with pytest.raises(InputError, match=r"^image 4: its inception features are not finite"):
        extract(images, batch_size=3)


def test_unknown_extractor() -> None:
    with pytest.raises(InputError, match="choose one of inception"):
        features.find("resnet")


def test_inception_is_called_as_published() -> None:
    """At 299 px nothing is resized, so that the features are those of the bare network on (x - 128) / 128."""
    if not weights.available("inception"):
        pytest.skip("the weights inception are not installed")
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, (299, 299, 3), dtype=np.uint8), rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)]
    result = extract(images, batch_size=2)
    assert result.shape == (2, INCEPTION.dim)
    assert (result >= 0).all()
    network = weights.load_member("inception")
    pixels = (torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() - 128) / 128
    with torch.inference_mode():
        np.testing.assert_allclose(result[0], network(pixels)[0].numpy(), atol=1e-4)
        with pytest.raises(Exception, match="Kernel size"):  # the network does not resize by itself
            network(pixels[..., :64, :64])
