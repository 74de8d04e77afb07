"""The decoder on a foundation's frozen features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError
from morphogen.foundation.halves import encode
from morphogen.foundation.model import Foundation
from morphogen.segmenters import build, resolve
from morphogen.segmenters.features.model import FeatureDecoder, FrozenFeatures
from morphogen.segmenters.predictor import load_segmenter
from segmenters.base import SegmenterTester
from small_foundations import perturb, small_foundation, small_tiny


@pytest.fixture(scope="module", autouse=True)
def options(foundation: Path) -> None:
    """Where `TestFeatures` finds the foundation."""
    TestFeatures.options = {"foundation": str(foundation)}


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
def test_levels_are_the_features_of_autoencoder_and_denoiser(foundation: Path) -> None:
    x, made = torch.rand(3, 3, 32, 32) * 2 - 1, Foundation.load(foundation)
    features = FrozenFeatures(made, 20)
    levels = features(x)
    assert [level.shape[-1] for level in levels] == [32, 16, 8, 4]
    seen, z = features._autoencoder(x)
    torch.testing.assert_close(z, made.encode(x))
    torch.testing.assert_close(levels[0][:, :8], made.vae.encoder.conv_in(x))
    found = encode(made.unet, z, torch.full((3,), 20), made.conditioning(["", "", ""]))
    torch.testing.assert_close(levels[-1][:, -32:], found.mid)
    assert sum(level.shape[1] for level in levels) == sum(f.shape[1] for f in (*seen, *found.skips, found.mid))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@torch.no_grad()
def test_the_layouts_of_large_foundations(kind: str, tmp_path: Path) -> None:
    features = FrozenFeatures(small_foundation(kind, tmp_path), 20)
    x = torch.rand(2, 3, features.multiple, 2 * features.multiple) * 2 - 1
    net = FeatureDecoder(features, [level.shape[1] for level in features(x)], 3)
    assert net(x).shape == (2, 3, features.multiple, 2 * features.multiple)


def test_a_folder_is_kept_with_its_whole_path_and_the_hash_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_tiny()
    made.save(tmp_path / "here" / "f")
    monkeypatch.chdir(tmp_path)
    found = resolve("features", {"foundation": "here/f"})
    assert found["foundation"] == str(tmp_path / "here" / "f")
    assert resolve("features", found) == found
    perturb(made.unet)
    made.save(tmp_path / "here" / "f")
    assert resolve("features", {"foundation": "here/f"})["weights"] != found["weights"]
    with pytest.raises(InputError, match="its weights are not those that this decoder was trained on"):
        build("features", 2, found)


def test_trained_by_the_command_and_loaded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phantom_dataset(tmp_path / "data", "mucosa", 8, 16, subjects=4)
    folder, out = str(TestFeatures.options["foundation"]), tmp_path / "run"
    words = ["train", "features", str(tmp_path / "data"), "--out", str(out), "--preset", folder]
    quick = ["--resolution", "16", "--max-train-steps", "2", "--train-batch-size", "4"]
    assert main([*words, *quick]) == 0
    assert load_segmenter(out).config["architecture"] == resolve("features", {"foundation": folder})
    kept = sum(p.stat().st_size for p in (out / "final").glob("*.safetensors"))
    decoder = sum(v.numel() for v in load_segmenter(out).net.state_dict().values())
    assert kept < 4 * decoder + 2**15
    capsys.readouterr()
    assert main([*words, *quick, "--encoder", "lite0"]) == 2
    assert "--encoder: features has no such option" in capsys.readouterr().err


def test_a_missing_foundation_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such: no such foundation"):
        build("features", 2, {"foundation": "no-such"})
