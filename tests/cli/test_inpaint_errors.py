"""What users get wrong with inpainting and with the latent segmenter: one line, exit 2, and nothing was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image

from morphogen.cli import main
from morphogen.data.phantoms import phantom_dataset
from morphogen.foundation.inpainting import widen
from morphogen.foundation.model import Foundation
from morphogen.generators import GENERATORS
from morphogen.generators.inpaint.config import InpaintConfig
from morphogen.segmenters import build, resolve
from morphogen.segmenters import task as segmenter_task
from morphogen.segmenters.predictor import save_segmenter
from morphogen.study import stages
from small_foundations import small_foundation, small_tiny

SIDE = 32


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Foundations `small` (as tiny), `wide` (one that inpaints), `sd` and `sdxl` (others'), and runs of both kinds."""
    root = tmp_path_factory.mktemp("room")
    small_tiny().save(root / "small")
    widen(Foundation.load(root / "small")).save(root / "wide")
    for kind in ("sd", "sdxl"):
        small_foundation(kind, root).save(root / kind)
    data = phantom_dataset(root / "data", "mucosa", 8, SIDE, subjects=8)
    config = InpaintConfig(
        foundation=str(root / "small"), max_train_steps=1, train_batch_size=2, adapt_steps=0, symmetries=False,
        sampling_steps=1, feather=0.05, normals="regions",
    )  # fmt: skip
    GENERATORS["inpaint"].train(data, config, root / "run")
    for name, options in (("latent", {"foundation": str(root / "small")}), ("unet", {"encoder": "scratch"})):
        resolved = resolve(name, options)
        (root / name).mkdir()
        net = build(name, 2, resolved, pretrained=False)
        save_segmenter(root / name, net, name, resolved, ("background", "polyp"), SIDE)
    return root


@pytest.fixture
def data(room: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may spoil."""
    return shutil.copytree(room / "data", tmp_path / "data")


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes after the checks fails loudly."""

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr(stages, "run_training", begun)
    monkeypatch.setattr("morphogen.generators.inpaint.model.claim", begun)
    monkeypatch.setattr("morphogen.sampling.runner.run_jobs", begun)
    monkeypatch.setattr(segmenter_task, "fit", begun)


def refused(words: list[str | Path], out: Path, capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """The command ends with exit 2 and one line that holds all `parts`; `out` was not made."""
    assert main([*map(str, words), "--out", str(out)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("morphogen: ")
    for part in parts:
        assert part in lines[0]
    assert not out.exists()


def pictures(folder: Path, n: int = 2) -> Path:
    """A folder of images without a lesion, as far as anybody looks."""
    folder.mkdir()
    for k in range(n):
        noise = np.random.default_rng(k).integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"normal-{k}.png")
    return folder


def no_folder(at: Path) -> Path:
    return at / "gone"


def a_file(at: Path) -> Path:
    (at / "thesis.txt").write_text("mine")
    return at / "thesis.txt"


def empty_folder(at: Path) -> Path:
    (at / "nothing").mkdir()
    return at / "nothing"


def unreadable(at: Path) -> Path:
    (pictures(at / "broken") / "normal-1.png").write_text("not a picture")
    return at / "broken"


NORMALS = [(no_folder, "gone"), (a_file, "thesis.txt"), (empty_folder, "nothing"), (unreadable, "normal-1.png")]


class TestTraining:
    """`morphogen train inpaint`."""

    @pytest.mark.parametrize(
        ("preset", "parts"),
        [
            ("{sd}", ["sd", "4 channels", "9", "inpainting folder"]),
            ("sd15+{sd}", ["sd", "4 channels", "9"]),
            ("sd15+{sdxl}", ["sdxl", "two text encoders", "sdxl"]),
            ("sd2+{sdxl}", ["sdxl", "two text encoders"]),
            ("sdxl+{sd}", ["sd", "one text encoder", "sd15"]),
            ("sdxl+{wide}", ["wide", "one text encoder"]),
            ("{small}+grammar={gone}.yaml", ["gone.yaml"]),
            ("{small}+grammar=polyps", ["polyps", "polyp"]),
            ("{small}+lesion_wieght=1", ["lesion_wieght", "lesion_weight"]),
            ("{small}+guidance=much", ["guidance", "number"]),
            ("{small}+text=maybe", ["text", "mask", "none", "wrong"]),
            ("{small}+strength=2", ["strength"]),
            ("{small}+sampling_steps=0", ["sampling"]),
            ("{small}+hole_all=0.5", ["hole_all"]),
            ("{small}+lr=-1", ["--lr -1"]),
            ("{small}+lr=nan", ["--lr nan"]),
            ("{small}+weight_decay=-1", ["--weight-decay -1"]),
            ("{small}+ema_decay=1", ["--ema-decay 1"]),
            ("{gone}", ["gone"]),
            ("tini", ["tini", "tiny"]),
        ],
    )
    def test_presets(
        self, preset: str, parts: list[str], room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        places = {name: str(room / name) for name in ("small", "wide", "sd", "sdxl")}
        words = ["train", "inpaint", room / "data", "--preset", preset.format(**places, gone=tmp_path / "gone")]
        refused(words, tmp_path / "out", capsys, *parts)

    @pytest.mark.parametrize(("spoil", "name"), NORMALS)
    def test_normal_images(
        self, spoil: Callable[[Path], Path], name: str, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        preset = f"{room / 'small'}+normals={spoil(tmp_path)}"
        refused(["train", "inpaint", room / "data", "--preset", preset], tmp_path / "out", capsys, name)

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("name: [unclosed", []),
            ("just words", []),
            (
                "name: mine\ntemplate: 'a {size} thing'\nshort: [a photo]\nempty: nothing\nunknown: thing\nslots: {}",
                ["size"],
            ),
            (
                "name: mine\ntemplate: 'a photo of a [{dragon} ]polyp'\nshort: [a photo]\nempty: a photo\n"
                "unknown: a photo\nslots: {dragon: {words: [hydra]}}",
                ["hydra"],
            ),
        ],
    )
    def test_grammar_files(
        self, text: str, parts: list[str], room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine.yaml").write_text(text)
        preset = f"{room / 'small'}+grammar={tmp_path / 'mine.yaml'}"
        refused(["train", "inpaint", room / "data", "--preset", preset], tmp_path / "out", capsys, "mine", *parts)

    def test_data_without_masks(
        self, room: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.rmtree(data / "masks")
        words = ["train", "inpaint", data, "--preset", room / "small"]
        refused(words, tmp_path / "out", capsys, "data", "mask")
        study = ["study", data, "--generator", "inpaint", "--preset", room / "small", "--folds", "2"]
        refused(study, tmp_path / "study", capsys, "data", "mask")

    def test_data_with_empty_masks_alone(
        self, room: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for path in (data / "masks").iterdir():
            Image.new("L", (SIDE, SIDE)).save(path)
        words = ["train", "inpaint", data, "--preset", room / "small", "--mask-values", "0=0,255=1"]
        refused(words, tmp_path / "out", capsys, "data", "foreground")

    def test_a_resolution_that_is_no_multiple(
        self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["train", "inpaint", room / "data", "--preset", room / "small", "--resolution", "33"]
        refused(words, tmp_path / "out", capsys, "33", "multiple")

    def test_a_caption_with_an_unknown_word(
        self, room: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = (data / "records.csv").read_text().replace("polyp,", "polyp,a dragon and ", 1)
        (data / "records.csv").write_text(table)
        words = ["train", "inpaint", data, "--preset", room / "small"]
        refused(words, tmp_path / "out", capsys, "mucosa-000000", "'dragon'")


class TestSampling:
    """`morphogen sample` of an inpainting run, and of a foundation that inpaints."""

    @pytest.mark.parametrize("source", ["run", "wide"])
    @pytest.mark.parametrize(
        ("line", "parts"),
        [
            ("a photo of a dragon", ["'dragon'"]),
            ("a photo of a polyp" + " with smooth surface" * 30, ["token"]),
            ("a {colour} polyp", ["colour", "color"]),
            ("a {size polyp", ["brace"]),
        ],
    )
    def test_prompts(
        self, line: str, parts: list[str], source: str, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "prompts.txt").write_text(line + "\n")
        words = ["sample", room / source, "--masks", room / "data", "--prompts", tmp_path / "prompts.txt"]
        words += ["--images", pictures(tmp_path / "normal")]
        if source == "wide":
            words += ["--preset", "grammar=polyp"]
        refused(words, tmp_path / "out", capsys, *parts)

    def test_a_prompt_that_says_otherwise_than_the_mask(
        self, room: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for path in (data / "masks").iterdir():
            mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
            mask[15:17, 15:17] = 255
            Image.fromarray(mask).save(path)
        (tmp_path / "prompts.txt").write_text("endoscopic photo of a large polyp\n")
        words = ["sample", room / "wide", "--masks", data, "--prompts", tmp_path / "prompts.txt"]
        words += ["--images", pictures(tmp_path / "normal"), "--preset", "grammar=polyp"]
        refused(words, tmp_path / "out", capsys, "'large'", "diminutive", "{size}")

    def test_a_prompt_with_too_many_tokens_for_a_clip(
        self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A tokenizer without a closed vocabulary, which would cut the prompt in silence."""
        wide = widen(small_foundation("sd", tmp_path))
        wide.save(tmp_path / "open")
        (tmp_path / "prompts.txt").write_text("abc " * 90 + "\n")
        words = ["sample", tmp_path / "open", "--masks", room / "data", "--prompts", tmp_path / "prompts.txt"]
        refused([*words, "--images", pictures(tmp_path / "normal")], tmp_path / "out", capsys, "tokens", "shorten")

    @pytest.mark.parametrize(("spoil", "name"), NORMALS)
    def test_normal_images(
        self, spoil: Callable[[Path], Path], name: str, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["sample", room / "run", "--masks", room / "data", "--images", spoil(tmp_path)]
        refused(words, tmp_path / "out", capsys, name)

    def test_no_normal_images_where_there_are_none(
        self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = shutil.copytree(room / "run", tmp_path / "run")
        shutil.rmtree(run / "normals")
        refused(["sample", run, "--masks", room / "data"], tmp_path / "out", capsys, "run", "--images")

    def test_images_that_are_all_black(self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "black").mkdir()
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "black" / "a.png")
        words = ["sample", room / "run", "--masks", room / "data", "--images", tmp_path / "black"]
        refused(words, tmp_path / "out", capsys, "black", "none of its 1 images", "--images")

    def test_an_empty_mask_is_named(
        self, room: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.new("L", (SIDE, SIDE)).save(data / "masks" / "mucosa-000002.png")
        refused(["sample", room / "run", "--masks", data], tmp_path / "out", capsys, "mucosa-000002.png", "empty")

    def test_masks_are_needed(self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        refused(["sample", room / "run"], tmp_path / "out", capsys, "run", "--masks")

    @pytest.mark.parametrize(
        ("preset", "parts"),
        [
            ("text=maybe", ["text", "maybe", "wrong"]),
            ("guidance=much", ["guidance", "number"]),
            ("sampling_steps=0", ["sampling"]),
            ("strength=0", ["strength"]),
            ("lr=1", ["lr"]),
            ("guidence=2", ["guidence", "guidance"]),
            ("solver", ["solver"]),
        ],
    )
    @pytest.mark.parametrize("source", ["run", "wide"])
    def test_presets(
        self, preset: str, parts: list[str], source: str, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["sample", room / source, "--masks", room / "data", "--preset", preset]
        refused([*words, "--images", pictures(tmp_path / "normal")], tmp_path / "out", capsys, *parts)

    def test_a_foundation_that_paints_no_holes(
        self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["sample", room / "sd", "--masks", room / "data", "--images", pictures(tmp_path / "normal")]
        refused(words, tmp_path / "out", capsys, "sd", "4 channels", "train inpaint")

    @pytest.mark.parametrize(
        ("name", "preset", "parts"),
        [("sdxl", "sd15", ["two text encoders", "take preset sdxl"]), ("wide", "sdxl", ["sd15"])],
    )
    def test_a_foundation_of_another_family_than_the_preset(
        self, name: str, preset: str, parts: list[str], room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["sample", room / name, "--masks", room / "data", "--images", pictures(tmp_path / "normal")]
        refused([*words, "--preset", preset], tmp_path / "out", capsys, name, *parts)

    @pytest.mark.parametrize(
        ("source", "words", "parts"),
        [
            ("run", ["--place", "here"], ["--place here", "drawn, as-is"]),
            ("wide", ["--areas", "odd"], ["--areas odd", "own, even"]),
            ("run", ["--place", "as-is", "--mask-transform", "flip"], ["--mask-transform flip", "--place as-is"]),
            ("wide", ["--place", "as-is", "--areas", "even"], ["--areas even", "--place as-is"]),
            ("run", ["--place", "as-is", "--images", "{normal}"], ["mucosa-00000", "holds no image"]),
            ("wide", ["--place", "as-is", "--images", "{gone}"], ["gone", "does not exist", "to paint into"]),
        ],
    )
    def test_where_lesions_go(
        self, source: str, words: list[str], parts: list[str], room: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        normal = pictures(tmp_path / "normal")
        filled = [word.format(normal=normal, gone=tmp_path / "gone") for word in words]
        filled += [] if "--images" in words else ["--images", str(normal)]
        refused(["sample", room / source, "--masks", room / "data", *filled], tmp_path / "out", capsys, *parts)

    @pytest.mark.parametrize("words", [["--place", "as-is"], ["--areas", "even"]])
    def test_lesions_go_nowhere_without_images(
        self, words: list[str], room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A foundation that paints prompts alone."""
        (tmp_path / "prompts.txt").write_text("a photo of a polyp\n")
        command = ["sample", room / "sd", "--prompts", tmp_path / "prompts.txt", *words]
        refused(command, tmp_path / "out", capsys, words[0], "paints into no images")

    def test_no_pairs(self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["sample", room / "run", "--masks", room / "data", "--per-mask", "0"]
        refused(words, tmp_path / "out", capsys, "--per-mask")


class TestLatent:
    """The latent segmenter: `morphogen train latent` and its `predict`."""

    @pytest.mark.parametrize(
        ("preset", "parts"),
        [
            ("foundation={wide}", ["wide", "9 channels"]),
            ("foundation={gone}", ["gone"]),
            ("foundation={small}+objective=x1", ["x1", "paper", "x0-align"]),
            ("foundation={small}+objective=x0-align+align=nobody", ["nobody", "lite0"]),
            ("foundation={small}+denoiser=churchs", ["churchs", "churches"]),
            ("foundation={small}+steps=0", ["steps"]),
            ("foundation={small}+ensemble=0", ["ensemble"]),
            ("foundation={small}+latent_weight=-1", ["latent_weight"]),
            ("foundation={small}+dropout=1", ["dropout"]),
            ("foundation={small}+lamda=1", ["lamda"]),
        ],
    )
    def test_presets(
        self, preset: str, parts: list[str], room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        places = {name: room / name for name in ("small", "wide", "sd")}
        words = ["train", "latent", room / "data", "--preset", preset.format(**places, gone=tmp_path / "gone")]
        refused(words, tmp_path / "out", capsys, *parts)

    def test_a_resolution_that_is_no_multiple(
        self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["train", "latent", room / "data", "--preset", f"foundation={room / 'small'}", "--resolution", "33"]
        refused(words, tmp_path / "out", capsys, "33", "multiple", "32")

    @pytest.mark.parametrize(
        ("segmenter", "options", "parts"),
        [
            ("latent", ["--steps", "0"], ["--steps 0"]),
            ("latent", ["--steps", "1001"], ["--steps 1001"]),
            ("latent", ["--ensemble", "0"], ["--ensemble 0"]),
            ("latent", ["--ensemble", "65"], ["--ensemble 65"]),
            ("latent", ["--seed", "-1"], ["--seed -1"]),
            ("latent", ["--uncertainty"], ["--uncertainty", "--ensemble"]),
            ("latent", ["--uncertainty", "--ensemble", "1"], ["--uncertainty", "--ensemble"]),
            ("unet", ["--uncertainty"], ["--uncertainty", "unet"]),
            ("unet", ["--steps", "2"], ["--steps", "unet"]),
            ("unet", ["--ensemble", "2"], ["--ensemble", "unet"]),
            ("unet", ["--seed", "2"], ["--seed", "unet"]),
        ],
    )
    def test_settings_of_a_prediction(
        self, segmenter: str, options: list[str], parts: list[str], room: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        words = ["predict", room / segmenter, room / "data" / "images", *options]
        refused(words, tmp_path / "out", capsys, *parts)

    def test_a_denoiser_for_other_latents(self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        net = UNet2DConditionModel.from_pretrained(room / "sd" / "unet")
        UNet2DConditionModel.from_config({**net.config, "in_channels": 3, "out_channels": 3}).save_pretrained(
            tmp_path / "denoiser"
        )
        preset = f"foundation={room / 'small'}+denoiser={tmp_path / 'denoiser'}"
        refused(
            ["train", "latent", room / "data", "--preset", preset], tmp_path / "out", capsys, "denoiser", "3 channels"
        )
        AutoencoderKL.from_pretrained(room / "sd" / "vae").save_pretrained(tmp_path / "vae")
        preset = f"foundation={room / 'small'}+denoiser={tmp_path / 'vae'}"
        refused(
            ["train", "latent", room / "data", "--preset", preset], tmp_path / "out", capsys, "vae", "AutoencoderKL"
        )


class TestStudy:
    """`morphogen study --generator inpaint`."""

    @pytest.mark.parametrize(
        ("words", "parts"),
        [
            (["--arms", "real-geo", "syn-geo+m=5"], ["syn-geo", "m=5", "'m'"]),
            (["--arms", "real-geo", "syn-geo+n=0"], ["syn-geo+n=0", "n=100"]),
            (["--arms", "real-geo", "syn-geo+n=few"], ["few"]),
            (["--arms", "real-geo", "syn-geo+text"], ["'text'", "option=value"]),
            (["--arms", "real-geo", "syn-geo+text=maybe"], ["maybe", "wrong"]),
            (["--arms", "real-geo", "syn-geo+lr=1"], ["lr"]),
            (["--arms", "real-geo", "syn-geo+guidance=much"], ["guidance", "number"]),
            (["--arms", "real-geo+n=5", "syn-geo"], ["real-geo+n=5", "no synthetic pairs"]),
            (["--arms", "syn-geo+n=5", "syn-geo+n=05"], ["one and the same"]),
            (["--synthetic", "0"], ["--synthetic 0"]),
            (["--gates", "drawm"], ["drawm", "drawn"]),
            (["--prompt", "a photo of a dragon"], ["'dragon'"]),
            (["--prompt", "a {colour} polyp"], ["colour"]),
            (
                ["--prompt", "a photo of a polyp", "--arms", "real-geo", "syn-geo+n=5", "syn-geo+n=5+text=none"],
                ["syn-geo+n=5+text=none", "--prompt", "leave one of them out"],
            ),
            (["--prompt", "a photo of a polyp", "--arms", "syn-geo+text=wrong"], ["syn-geo+text=wrong", "--prompt"]),
            (["--prompt", "a photo of a polyp", "--preset", "{small}+text=none"], ["text=none", "--prompt"]),
            (
                ["--preset", "{small}+grammar=polyp", "--prompt", "endoscopic photo of a large polyp"],
                ["'large'", "{size}"],
            ),
            (["--prompt", "endoscopic photo of a polyp" + " with smooth surface" * 30], ["token"]),
            (["--preset", "{sd}"], ["4 channels"]),
            (["--preset", "sdxl+{sd}"], ["one text encoder"]),
            (["--preset", "{small}+normals={gone}"], ["gone"]),
            (["--preset", "{small}+grammar={gone}.yaml"], ["gone.yaml"]),
            (["--judges", "latent+foundation={wide}"], ["wide", "9 channels"]),
            (["--judges", "latent+objective=x1"], ["x1"]),
            (["--judges", "latent+foundation={small}", "--resolution", "33"], ["33", "multiple", "32"]),
        ],
    )
    def test_options(
        self, words: list[str], parts: list[str], room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        places = {name: str(room / name) for name in ("small", "wide", "sd")}
        filled = [word if "colour" in word else word.format(**places, gone=tmp_path / "gone") for word in words]
        preset = [] if "--preset" in words else ["--preset", str(room / "small")]
        command = ["study", room / "data", "--generator", "inpaint", "--folds", "2", *preset, *filled]
        refused(command, tmp_path / "out", capsys, *parts)

    def test_gates_of_painted_lesions_are_for_generators_that_paint_into_images(
        self, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for gate in ("drawn", "untouched"):
            words = ["study", room / "data", "--generator", "copy-paste", "--folds", "2", "--gates", gate]
            refused(words, tmp_path / "out", capsys, gate, "copy-paste")
