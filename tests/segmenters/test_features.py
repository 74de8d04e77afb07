"""The decoder on a foundation's frozen features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from morphogen.data.prompts import vocabulary
from morphogen.errors import InputError
from morphogen.foundation.halves import encode
from morphogen.foundation.model import Foundation
from morphogen.foundation.tiny_model import TinyConfig, build_tiny
from morphogen.segmenters import build
from morphogen.segmenters.features.model import FrozenFeatures
from segmenters.base import SegmenterTester

SMALL = TinyConfig(resolution=32, vae_channels=(8, 16), unet_channels=(16, 32), text_width=16, text_layers=1)


@pytest.fixture(scope="module", autouse=True)
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Foundation:
    """A small random foundation, saved where `TestFeatures` finds it."""
    folder = tmp_path_factory.mktemp("foundation")
    made = build_tiny(SMALL, vocabulary())
    made.vae.register_to_config(scaling_factor=0.7)
    made.save(folder)
    TestFeatures.options = {"foundation": str(folder)}
    return made.to("cpu")


class TestFeatures(SegmenterTester):
    name = "features"

    def test_the_foundation_is_neither_trained_nor_saved(self) -> None:
        net = self.net().train()
        x = torch.rand(2, 3, 32, 32) * 2 - 1
        before = FrozenFeatures(Foundation.load(str(self.options["foundation"])), 20)(x)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        net(x).square().mean().backward()
        optimizer.step()
        for ours, theirs in zip(net.net.features(x), before, strict=True):
            assert torch.equal(ours, theirs)
        assert not any("unet" in key or "vae" in key for key in net.state_dict())


@torch.no_grad()
def test_levels_are_the_features_of_autoencoder_and_denoiser(foundation: Foundation) -> None:
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    features = FrozenFeatures(foundation, 20)
    levels = features(x)
    assert [level.shape[-1] for level in levels] == [32, 16, 8]
    seen, z = features._autoencoder(x)
    torch.testing.assert_close(z, foundation.encode(x))
    torch.testing.assert_close(levels[0][:, :8], foundation.vae.encoder.conv_in(x))
    found = encode(foundation.unet, z, torch.full((3,), 20), foundation.conditioning(["", "", ""]))
    torch.testing.assert_close(levels[2][:, -32:], found.mid)
    assert sum(level.shape[1] for level in levels) == sum(f.shape[1] for f in (*seen, *found.skips, found.mid))


def test_a_missing_foundation_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such: no such foundation"):
        build("features", 2, {"foundation": "no-such"})
