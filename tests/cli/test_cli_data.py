"""`morphogen data check | split | convert`, in process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.cli import main
from morphogen.data.readers import read_dataset


def folder(root: Path) -> Path:
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(10):
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(root / "masks" / f"{i}.png")
    (root / "records.csv").write_text("id,subject\n" + "".join(f"{i},s{i // 2}\n" for i in range(10)))
    return root


def test_check_writes_json_and_exits_0_or_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = folder(tmp_path / "set"), tmp_path / "r.json"
    assert main(["data", "check", str(root), "--json", str(out)]) == 0
    held = json.loads(out.read_text())
    assert (held["n"], held["image_sizes"], held["faults"]) == (10, {"8x8": 10}, [])
    assert "10 images" in capsys.readouterr().out
    (root / "masks" / "3.png").unlink()
    (root / "images" / "4.png").write_text("text")
    assert main(["data", "check", str(root), "--json", str(out)]) == 2
    assert len(json.loads(out.read_text())["faults"]) == 2
    printed = capsys.readouterr()
    assert "3.png: has no mask" in printed.out
    assert "4.png: is not a PNG" in printed.out
    assert "1 more fault" in printed.err
    assert "Traceback" not in printed.err


def test_split_freezes_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = folder(tmp_path / "set"), tmp_path / "splits.json"
    words = ["data", "split", str(root), "--out", str(out)]
    assert main(words) == 0
    frozen = out.read_bytes()
    assert len(json.loads(frozen)["folds"]) == 5
    assert len(json.loads((tmp_path / "splits_final.json").read_text())) == 5
    assert main(words) == 0
    assert main([*words, "--folds", "2"]) == 2
    assert out.read_bytes() == frozen
    assert "holds another split" in capsys.readouterr().err
    assert main([*words, "--folds", "6"]) == 2
    assert "too few for 6 folds" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["folders", "nnunet", "imagefolder", "prompt-json"])
def test_convert(tmp_path: Path, layout: str) -> None:
    root = folder(tmp_path / "set")
    assert main(["data", "convert", str(root), "--to", layout, "--out", str(tmp_path / "out")]) == 0
    made = read_dataset(tmp_path / "out", layout)
    assert made.ids == read_dataset(root).ids
    assert made[3].subject == "s1"
    assert main(["data", "convert", str(root), "--to", layout, "--out", str(tmp_path / "out")]) == 2


def test_mask_values_are_stated_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "set")
    Image.fromarray(np.diag([0, 7, 255, 0, 0, 0, 0, 0]).astype(np.uint8)).save(root / "masks" / "2.png")
    assert main(["data", "check", str(root)]) == 2
    assert "--mask-values 0=0,7=1,255=2" in capsys.readouterr().err
    assert main(["data", "check", str(root), "--mask-values", "0=0,7=1,255=2"]) == 0
    assert main(["data", "check", str(root), "--mask-values", "7"]) == 2
