"""The V-Net: its published size, its shapes, its denoiser and its modules."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
import torch

from morphogen.errors import InputError
from morphogen.segmenters.diffcl.config import NetConfig, refuse_patch
from morphogen.segmenters.diffcl.vnet import VNet, VNetConfig, build, time_embedding


def parameters(config: VNetConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in VNet(config).parameters())


def test_sixteen_filters_and_two_classes_are_the_published_nine_and_a_half_million() -> None:
    assert parameters(VNetConfig()) == 9_448_866
    with torch.device("meta"):
        features = VNet(VNetConfig()).encoder
    assert [len(block.units) for block in features] == [1, 2, 3, 3, 3]


@pytest.mark.parametrize(("dims", "patch"), [(3, (112, 112, 80)), (2, (96, 64))])
def test_levels_halve_and_double_as_published(dims: int, patch: tuple[int, ...]) -> None:
    seen: list[tuple[int, ...]] = []
    with torch.device("meta"):
        net = VNet(VNetConfig(dims=dims))
        for block in net.encoder:
            block.register_forward_hook(lambda _, __, made: seen.append(tuple(made.shape[1:])))
        assert net(torch.zeros(1, 1, *patch)).shape == (1, 2, *patch)
    assert seen == [(16 * 2**i, *(side // 2**i for side in patch)) for i in range(5)]


def test_the_denoiser_sees_image_and_mask_and_every_class_of_time() -> None:
    config = VNetConfig(dims=2, filters=2, in_channels=3, n_classes=4, denoiser=True)
    torch.manual_seed(0)
    net = VNet(config).eval()
    x = torch.randn(2, 7, 32, 32)
    early, late = (net(x, torch.full((2,), t)) for t in (0, 999))
    assert early.shape == (2, 4, 32, 32)
    assert not torch.allclose(early, late)


def test_time_enters_after_every_convolution_of_a_block_but_the_last_and_after_every_step_between_levels() -> None:
    net = VNet(VNetConfig(filters=2, denoiser=True))
    for blocks in (net.encoder, net.decoder):
        for block in blocks:
            assert [unit.time is not None for unit in block.units] == [True] * (len(block.units) - 1) + [False]
    assert all(unit.time is not None for unit in (*net.downs, *net.ups))
    assert all(unit.time is None for block in VNet(VNetConfig(filters=2)).encoder for unit in block.units)


def test_time_embedding_is_sines_and_cosines_of_falling_rates() -> None:
    made = time_embedding(torch.tensor([0, 7, 999]))
    for row, t in zip(made, (0, 7, 999), strict=True):
        for i in range(64):
            angle = t * 10_000 ** (-i / 63)
            assert row[i].item() == pytest.approx(math.sin(angle), abs=1e-3)
            assert row[64 + i].item() == pytest.approx(math.cos(angle), abs=1e-3)


@pytest.mark.parametrize("operator", ["fft", "haar", "laplacian"])
def test_modules_at_skips_change_nothing_at_the_start_and_learn(operator: str) -> None:
    plain = VNetConfig(dims=2, filters=4)
    torch.manual_seed(0)
    bare = VNet(plain).eval()
    config = NetConfig(filters=4, operator=operator).shape(2, 1, 2)  # type: ignore[arg-type]
    net = VNet(config).eval()
    assert sorted(net.hfm) == ["3", "4"]
    net.load_state_dict(bare.state_dict(), strict=False)
    x = torch.randn(1, 1, 64, 64)
    assert torch.equal(net(x), bare(x))
    net(x).square().mean().backward()
    assert all(module.gamma.grad.abs().sum() > 0 for module in net.hfm.values())


def test_a_config_file_makes_the_same_net_again() -> None:
    for config in (VNetConfig(filters=2), replace(NetConfig(filters=2).shape(3, 2, 3), denoiser=True)):
        with torch.device("meta"):
            again = build(asdict(config))
        assert again.config == config
    assert build({**asdict(VNetConfig(filters=1)), "hfm": [3]}).config.hfm == (3,)  # as JSON has it


def test_dropout_is_of_two_places_or_in_a_denoiser_of_all() -> None:
    def drops(config: VNetConfig) -> list[float]:
        return [m.p for m in VNet(config).modules() if isinstance(m, torch.nn.Dropout3d)]

    assert drops(VNetConfig(filters=1)) == [0.5]  # one module, used twice
    assert drops(VNetConfig(filters=1, denoiser=True, dropout=0.1)) == [0.1] * (12 + 9 + 4 + 4)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    for settings in ({"dims": 4}, {"filters": 0}, {"norm": "layer"}, {"hfm": (5,)}, {"n_classes": 1}):
        with pytest.raises(InputError, match="diffcl"):
            VNetConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="multiples of 16; write 48 for 50"):
        refuse_patch((64, 50, 32))
    with pytest.raises(InputError, match="digits"):
        NetConfig(hfm="3,4")
