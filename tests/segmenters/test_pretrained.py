"""Weights of encoders: where they are found, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from morphogen.errors import InputError
from morphogen.segmenters import resolve
from morphogen.segmenters.pretrained import FILE, load_encoder, weights_file


@pytest.fixture
def encoder() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


@pytest.mark.parametrize("name", ["segformer", "sanet", "polyp-pvt", "ctnet"])
@pytest.mark.parametrize(
    ("options", "said"),
    [({"size": "huge"}, "has no size 'huge'"), ({"weights": ""}, "weights '': give imagenet, none")],
)
def test_every_encoder_refuses_what_names_nothing(name: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=f"{name}: {said}"):
        resolve(name, options)


def test_a_file_or_its_folder(tmp_path: Path, encoder: nn.Module) -> None:
    save_file(encoder.state_dict(), tmp_path / FILE)
    assert weights_file(str(tmp_path)) == weights_file(str(tmp_path / FILE)) == tmp_path / FILE


def test_keys_are_renamed_and_parts_left_out(tmp_path: Path, encoder: nn.Module) -> None:
    state = {f"trunk.{key}": torch.full_like(value, 2) for key, value in encoder.state_dict().items()}
    save_file({**state, "head.weight": torch.zeros(2)}, tmp_path / FILE)
    load_encoder(encoder, tmp_path / FILE, lambda key: key.removeprefix("trunk.") if key.startswith("trunk.") else None)
    assert all((value == 2).all() for value in encoder.state_dict().values())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: state.pop("0.bias"), "it lacks 0.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "it holds extra too"),
        (lambda state: state.update({"0.bias": torch.zeros(5)}), r"0.bias is \(5,\), not \(4,\)"),
    ],
)
def test_another_layout_is_refused_by_the_first_key_and_nothing_is_loaded(
    tmp_path: Path, encoder: nn.Module, change: object, fault: str
) -> None:
    state = {key: torch.zeros_like(value) for key, value in encoder.state_dict().items()}
    change(state)  # type: ignore[operator]
    save_file(state, tmp_path / FILE)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(InputError, match=fault):
        load_encoder(encoder, tmp_path / FILE)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_counters_may_be_missing_where_that_is_said(tmp_path: Path, encoder: nn.Module) -> None:
    state = encoder.state_dict()
    save_file({key: value for key, value in state.items() if key != "1.num_batches_tracked"}, tmp_path / FILE)
    load_encoder(encoder, tmp_path / FILE, ignore=["1.num_batches_tracked"])


def test_a_damaged_file_is_one_line(tmp_path: Path, encoder: nn.Module) -> None:
    (tmp_path / FILE).write_bytes(b"not a tensor")
    with pytest.raises(InputError, match="is no whole safetensors file"):
        load_encoder(encoder, tmp_path / FILE)


def test_a_name_that_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such weights"):
        weights_file(str(tmp_path / "nowhere"))


def test_the_hub_out_of_reach_names_the_id_and_both_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"nobody/net@abc.*cannot be reached.*weights=FOLDER.*weights=none"):
        weights_file("nobody/net@abc")
    assert "nobody/net@abc: is not in the hub's cache; asking the hub for it" in capsys.readouterr().out


def test_what_the_cache_holds_is_not_announced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--nobody--net" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_file(encoder.state_dict(), snapshot / FILE)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert weights_file(f"nobody/net@{commit}") == snapshot / FILE
    assert capsys.readouterr().out == ""
