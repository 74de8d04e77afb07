"""Trained networks on disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from morphogen.errors import InputError
from morphogen.training.net_files import TrainedNet, save_net, to_input

CONFIG = {"toy": "wide", "architecture": {"width": 3}, "classes": ["a", "b"], "resolution": 16, "more": 0.5}


class Toy(TrainedNet):
    kind: ClassVar[str] = "toy"


def build(name: str, n_classes: int, architecture: dict[str, Any], pretrained: bool) -> nn.Module:
    assert (name, pretrained) == ("wide", False)
    return nn.Sequential(nn.Linear(architecture["width"], n_classes), nn.Dropout())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a finished network."""
    (tmp_path / "run" / "final").mkdir(parents=True)
    save_net(tmp_path / "run" / "final", build("wide", 2, {"width": 3}, False).state_dict(), CONFIG)
    return tmp_path / "run"


def load(run: Path) -> Toy:
    return Toy.load(run, build, "cpu")


def test_bytes_map_to_minus_one_and_one() -> None:
    values = to_input(np.array([0, 255, 51], dtype=np.uint8).reshape(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(values, torch.tensor([-1.0, 1.0, -0.6]))


def test_config_is_written_in_its_order(run: Path) -> None:
    assert (run / "final" / "config.json").read_text() == json.dumps(CONFIG, indent=1) + "\n"


def test_loads_from_the_run_and_from_its_final_folder(run: Path) -> None:
    a, b = load(run), load(run / "final")
    assert (a.classes, a.resolution, a.config, a.folder) == (("a", "b"), 16, CONFIG, run / "final")
    assert all(torch.equal(a.net.state_dict()[key], value) for key, value in b.net.state_dict().items())
    assert not a.net.training
    files = [(run / "final" / name).read_bytes() for name in ("config.json", "model.safetensors")]
    assert a.hash == b.hash == hashlib.sha256(b"".join(files)).hexdigest()


def test_images_of_any_size_are_resized(run: Path) -> None:
    images = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((40, 30), (7, 90))]
    expected = [np.array(Image.fromarray(image).resize((16, 16), Image.Resampling.LANCZOS)) for image in images]
    assert np.array_equal(load(run).resized(images), np.stack(expected).transpose(0, 3, 1, 2))


class TestWrong:
    def test_absent_files_are_one_line(self, run: Path, tmp_path: Path) -> None:
        said = r"nowhere: holds no finished toy \(config\.json is missing\); name a run of `train`$"
        with pytest.raises(InputError, match=said):
            load(tmp_path / "nowhere")
        (run / "final" / "model.safetensors").unlink()
        with pytest.raises(InputError, match=r"run: holds no finished toy \(model\.safetensors is missing\)"):
            load(run)

    @pytest.mark.parametrize("key", [*CONFIG][:-1])
    def test_a_config_that_lacks_something_is_one_line(self, key: str, run: Path) -> None:
        config = {name: value for name, value in CONFIG.items() if name != key}
        (run / "final" / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=rf"final: is not a toy .* reads \('{key}'\); train it again$"):
            load(run)

    def test_damaged_weights_are_one_line(self, run: Path) -> None:
        weights = run / "final" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:50])
        with pytest.raises(InputError, match=r"is not a toy that this version reads \(.*\); train it again$"):
            load(run)

    def test_weights_of_another_shape_are_one_line(self, run: Path) -> None:
        save_net(run / "final", nn.Linear(4, 2).state_dict(), CONFIG)
        with pytest.raises(InputError, match=r"is not a toy .*Missing key.*; train it again$"):
            load(run)

    def test_what_the_builder_refuses_is_said_as_it_is(self, run: Path) -> None:
        def refuses(*_: Any, **__: Any) -> nn.Module:
            raise InputError("wide: no such thing")

        with pytest.raises(InputError, match=r"^wide: no such thing$"):
            Toy.load(run, refuses, "cpu")
