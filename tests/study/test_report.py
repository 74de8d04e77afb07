"""The report page and its verb."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.cli import main
from morphogen.generators import GENERATORS, GeneratorEntry
from morphogen.study.figures import axis, curve, outlined, pairs
from morphogen.study.recipe import StudyConfig
from morphogen.study.report import build
from morphogen.study.results import join
from morphogen.study.run import run_study
from study.study_folder import EFFECTS, Fake, write_images, write_pictures


class Page(HTMLParser):
    """Collects text and outside references, and checks that tags are closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.references, self.open = "", [], []  # type: tuple[str, list[str], list[str]]
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value for name, value in attrs if name in ("src", "href") and value is not None]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with everything that a folder can hold."""
    out = tmp_path_factory.mktemp("study")
    fake = Fake()
    fake.write_cells(out)
    Fake(effects={"real-geo": 0.0, "syn-geo": 0.01}, test_set="clinic <b>").write_cells(out)
    fake.write_plan(out, out / "data")
    write_pictures(out, out / "data")
    for fold in range(2):
        write_images(out, fold)
    for fold, score in enumerate((0.5, 0.9, 0.7)):
        run = out / "runs" / f"syn-geo.unet.fold{fold}.n20"
        (run / "final").mkdir(parents=True)
        architecture = {"segmenter": "unet", "architecture": {"encoder": "scratch"}}
        (run / "final/config.json").write_text(json.dumps(architecture))
        (run / "metrics.jsonl").write_text(json.dumps({"step": 9, "val/score": score}) + "\n")
    (out / "test_reads.jsonl").write_text("{}\n" * 20)
    build(out)
    return out


def test_page_stands_alone_and_is_well_formed(whole: Path) -> None:
    source = (whole / "report.html").read_text()
    page = Page(source)
    assert page.open == []
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert "http://" not in source
    assert "<script" not in source
    assert "url(" not in source


def test_page_says_everything_verdict_first(whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text())
    text = Page((whole / "report.html").read_text()).text
    assert results["verdict"]["outcome"] == "helped"
    parts = ["Synthetic pairs helped", results["verdict"]["text"], "Each arm against its control", "Pairs side by side"]
    parts += ["Quality of the synthetic images", "Audit", "Protocol", "encoder scratch", "Use it", "morphogen predict"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    for arm in EFFECTS:
        assert arm in text
    assert "opened for scoring 20 times" in text
    assert "A note on the splits." in text
    assert "12.5 %" in text
    assert "2.0 %" in text
    assert "The closest pairs of fold0" in text
    assert str(whole / "synthetic") in text


def test_predict_command_names_the_run_with_the_best_validation_score(whole: Path) -> None:
    text = Page((whole / "report.html").read_text()).text
    assert f"morphogen predict {whole / 'runs/syn-geo.unet.fold1.n20'} IMAGES --out MASKS" in text


def test_empty_masks_are_summed_and_said_in_one_line(tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0, "syn-geo": 0.0, "syn": 0.0}).write_cells(tmp_path)
    build(tmp_path)
    assert "Scored by rule" not in (tmp_path / "report.html").read_text()
    for name, both, one in (("real-geo.unet.fold0", 2, 0), ("real-geo.unet.fold2", 1, 4), ("syn.unet.fold1", 0, 5)):
        path = tmp_path / "cells" / f"{name}.n20.test.json"
        empty = {"polyp": {"both": both, "one": one}, "vessel": {"both": 0, "one": 1}}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"empty": empty}))
    assert build(tmp_path)["empty"] == {
        "real-geo": {"both": 3, "one": 6}, "syn": {"both": 0, "one": 6}, "syn-geo": {"both": 0, "one": 0},
    }  # fmt: skip
    text = Page((tmp_path / "report.html").read_text()).text
    assert text.count("Scored by rule") == 1
    assert "the diagonal): real-geo (3; 6), syn (0; 6)." in text


def test_the_page_says_that_copy_paste_copies(whole: Path, tmp_path: Path) -> None:
    says = "so that nearly every pair is flagged"
    assert Page((whole / "report.html").read_text()).text.count(says) == 1
    fake = Fake(effects={"real-geo": 0.0, "syn-geo": 0.0})
    fake.write_cells(tmp_path)
    fake.write_plan(tmp_path, tmp_path / "data")
    write_images(tmp_path, 0)
    study = (tmp_path / "study.yaml").read_text()
    (tmp_path / "study.yaml").write_text(study.replace("copy-paste", "siamese"))
    build(tmp_path)
    assert says not in (tmp_path / "report.html").read_text()


def test_the_caption_says_what_the_floor_is_between(whole: Path, tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0, "syn-geo": 0.0}).write_cells(tmp_path)
    write_images(tmp_path, 0)
    path = tmp_path / "images" / "fold0.json"
    reference = "other images (partly of the same subjects, so that the floor is lower than between subjects)"
    path.write_text(path.read_text().replace("other images", reference))
    build(tmp_path)
    assert f"Distance from {reference};" in Page((tmp_path / "report.html").read_text()).text


def test_names_are_escaped(whole: Path) -> None:
    source = (whole / "report.html").read_text()
    assert "clinic &lt;b&gt;" in source
    assert "clinic <b>" not in source


def test_image_measures_are_means_over_repetitions(whole: Path) -> None:
    text = Page((whole / "report.html").read_text()).text
    assert "65.0" in text  # KID x 1000 of 0.06 and 0.07
    assert "100.5" in text
    results = json.loads((whole / "results.json").read_text())
    assert set(results["images"]) == set(results["audit"]) == {"fold0", "fold1"}
    assert results["audit"]["fold0"]["memorisation"]["flagged"] == 2


def test_audits_of_both_ages_are_shown(whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text())
    assert set(results["audit"]["fold0"]) == {"memorisation", "leakage", "duplicates", "gates"}
    assert set(results["audit"]["fold1"]) == {"memorisation"}
    assert results["audit"]["fold1"]["memorisation"]["ci95"] == pytest.approx([0.035, 0.360], abs=1e-3)
    source = (whole / "report.html").read_text()
    text = unescape(" ".join(re.sub("<[^>]+>", " ", source).split()))
    shown = [
        "12.5 % 3.5 % to 36.0 %",
        "50 held out",
        "pixel 73.1 %",
        "Near-duplicates of test images in the other parts found 3 for example test t<1>, train a2",
        "unknown the foundation does not say",
        "fold0 16 4 25.0 % 5.0 %",
        "fold0 11 5 5 0",
        "sharpness 8.25",
        "another architecture and seed than the judge of mask adherence",
    ]
    for words in shown:
        assert words in text, words
    assert "t<1>" not in source


def test_a_pair_that_was_dropped_says_so(tmp_path: Path) -> None:
    Fake().write_cells(tmp_path)
    Fake().write_plan(tmp_path, tmp_path / "data")
    write_pictures(tmp_path, tmp_path / "data", folds=1)
    path = tmp_path / "synthetic" / "fold0" / "manifest.jsonl"
    rows = [json.loads(line) | {"dropped": ["blur", "copies"]} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path)
    assert "dropped: blur, copies" in Page((tmp_path / "report.html").read_text()).text


def test_pairs_show_real_beside_synthetic(whole: Path) -> None:
    source = (whole / "report.html").read_text()
    assert len(re.findall('alt="Real image', source)) == len(re.findall('alt="Synthetic image', source)) > 4


def test_cells_alone_are_enough(tmp_path: Path) -> None:
    Fake(effects={"real-geo": 0.0, "syn-geo": 0.0}).write_cells(tmp_path)
    results = build(tmp_path)
    text = Page((tmp_path / "report.html").read_text()).text
    assert "Undecided" in text
    for absence in ("No synthetic pairs lie", "FID and KID were not measured", "No audit", "are not in this folder"):
        assert absence in text
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(results))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "report.html", "results.json"]


@pytest.mark.parametrize(
    ("kind", "says"), [("kfold", "Grouped k-fold"), ("fixed", "Fixed split by subject"), ("given", "the data state")]
)
def test_page_says_how_the_data_were_split(kind: str, says: str, tmp_path: Path) -> None:
    fake = Fake(effects={"real-geo": 0.0, "syn-geo": 0.01})
    fake.write_cells(tmp_path)
    fake.write_plan(tmp_path, tmp_path / "data")
    splits = json.loads((tmp_path / "splits.json").read_text())
    (tmp_path / "splits.json").write_text(json.dumps({**splits, "kind": kind}))
    build(tmp_path)
    page = Page((tmp_path / "report.html").read_text()).text
    assert says in page
    assert "are not in this folder" not in page.split("Protocol")[1].split("Use it")[0]


def test_a_study_without_its_main_arms_still_has_a_page(tmp_path: Path) -> None:
    Fake(effects={"real": 0.0}).write_cells(tmp_path)
    build(tmp_path)
    assert "No verdict yet" in (tmp_path / "report.html").read_text()


def test_reports_of_the_same_cells_are_the_same(tmp_path: Path) -> None:
    Fake(subjects=6).write_cells(tmp_path)
    build(tmp_path)
    first = (tmp_path / "results.json").read_bytes(), (tmp_path / "report.html").read_bytes()
    build(tmp_path)
    assert first == ((tmp_path / "results.json").read_bytes(), (tmp_path / "report.html").read_bytes())


def test_curve_needs_two_sizes(tmp_path: Path) -> None:
    arms = {"real-geo": 0.0, "syn-geo": 0.05}
    Fake(effects=arms, subjects=6, n_annotated=20, config_hash="a").write_cells(tmp_path)
    assert curve(join(tmp_path).groups) is None
    Fake(effects=arms, subjects=6, n_annotated=40, config_hash="b").write_cells(tmp_path)
    build(tmp_path)
    assert 'src="data:image/svg+xml;base64,' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("values", [[-0.01, 0.03], [0.2, 0.25], [-12.0, -3.0], [0.0], [1e-4]])
def test_axis_holds_every_value_and_zero(values: list[float]) -> None:
    found = axis(values)
    assert all(0 < found.at(v) < 100 for v in [*values, 0.0])
    assert any(abs(tick) < 1e-12 for tick in found.ticks)
    assert 3 <= len(found.ticks) <= 8
    labels = [found.label(tick) for tick in found.ticks]
    assert len(set(labels)) == len(labels)


def test_outline_follows_the_mask() -> None:
    import base64
    import io

    from PIL import Image

    mask = np.zeros((54, 54), np.uint8)
    mask[13:40, 13:40] = 255
    uri = outlined(np.zeros((54, 54, 3), np.uint8), mask)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    drawn = np.argwhere(pixels.any(axis=2))
    assert pixels.shape == (216, 216, 3)
    assert drawn.min() == 13 * 4 - 1
    assert drawn.max() == 40 * 4
    assert not pixels[80:130, 80:130].any()


def test_pairs_of_a_generator_that_makes_its_masks(
    make_config: Callable[..., StudyConfig], quick: Any, without_inception: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = GeneratorEntry("dual-fake", "makes both", "here", frozenset(), "study.fake_dual")
    monkeypatch.setitem(GENERATORS, "dual-fake", entry)
    config = make_config(generator="dual-fake", arms=("real-geo", "syn-geo"))
    run_study(config, quick.tools)
    page = (config.out / "report.html").read_text()
    assert Page(page).open == []
    assert "right the same with the outline of the mask that the generator made with it" in page
    assert "made from a transform of that mask" not in page
    assert "real image not at hand" not in page
    shown = pairs(config.out, {"data": str(config.data)})
    assert shown
    for pair in shown:
        assert (pair.source_id, pair.real) == (None, None)
        assert pair.plain not in (None, pair.synthetic)
        assert pair.prompt
        assert f"<figcaption>{pair.prompt}<br>{pair.synthetic_id} · {pair.label}</figcaption>" in page


def test_verb_prints_the_verdict_and_the_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fake(subjects=6).write_cells(tmp_path)
    (tmp_path / "cells/syn.unet.fold0.n20.test.json").unlink()
    assert main(["report", str(tmp_path), "--json", str(tmp_path / "r.json")]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["verdict"]["text"] in printed
    assert "missing: syn.unet.fold0" in printed
    assert str(tmp_path / "report.html") in printed


def test_verb_on_a_folder_without_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds no finished cell" in error
    assert list(tmp_path.iterdir()) == []
