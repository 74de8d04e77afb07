"""The inpainting generator: as a generator, what it trains on, what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generators.base import GeneratorTester
from morphogen.data.grammar_files import as_yaml
from morphogen.data.mask_words import choices
from morphogen.data.pairs import Pairs, native_mask
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.prompts import Grammar, grammars, tokens
from morphogen.data.records import Dataset
from morphogen.errors import InputError
from morphogen.foundation.halves import predict
from morphogen.foundation.images import to_signed
from morphogen.foundation.inpainting import widen
from morphogen.foundation.model import Foundation
from morphogen.generators import GENERATORS
from morphogen.generators.inpaint import model
from morphogen.generators.inpaint.config import PRESETS, SAMPLING, InpaintConfig, inpaint_config
from morphogen.generators.inpaint.holes import elsewhere, feathered, grown, paste
from morphogen.generators.inpaint.task import InpaintTask
from morphogen.training.task import Draw, Progress
from small_foundations import perturb, small_foundation, small_tiny


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foundation") / "small"
    small_tiny().save(folder)
    return folder


def quick(foundation: Path | str, **changes: object) -> InpaintConfig:
    values = {"max_train_steps": 3, "train_batch_size": 4, "sampling_steps": 2, "feather": 0.05, "normals": "removed"}
    values |= changes
    return InpaintConfig(foundation=str(foundation), **values)  # type: ignore[arg-type]


def task_of(foundation: Path, data: Dataset, **changes: object) -> InpaintTask:
    config = quick(foundation, **changes)
    wide = widen(Foundation.load(foundation))
    return InpaintTask(wide, model.training_set(wide, Pairs(data, 32), config, Grammar.load("polyp")), config)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return phantom_dataset(tmp_path_factory.mktemp("data"), "mucosa", 4, 32, seed=2)


class TestAsGenerator(GeneratorTester):
    name = "inpaint"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def set_config(cls, foundation: Path) -> None:
        cls.config = quick(foundation)

    def test_the_run_is_a_stock_folder_with_its_own_normals(self, run: Path, data: Dataset) -> None:
        index = json.loads((run / "final" / "model_index.json").read_text())
        assert index["_class_name"] == "StableDiffusionInpaintPipeline"
        sampler = model.load(run)
        assert sampler.normals is not None
        assert set(sampler.normals.ids) <= set(data.ids)

    def test_normals_that_are_lost_are_made_again_as_they_were(self, run: Path, data: Dataset) -> None:
        files = {path: path.read_bytes() for path in (run / "normals").rglob("*.png")}
        next(iter(files)).unlink()
        weights = (run / "final" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
        model.train(data, self.config, run)
        assert {path: path.read_bytes() for path in (run / "normals").rglob("*.png")} == files
        assert (run / "final" / "unet" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == weights

    def test_another_run_is_refused(self, run: Path, data: Dataset) -> None:
        with pytest.raises(InputError, match="holds"):
            model.train(data, replace(self.config, lr=1e-3), run)


class TestHoles:
    def test_feather_against_a_literal_one(self) -> None:
        rng = np.random.default_rng(0)
        mask = np.zeros((17, 23), dtype=np.int64)
        mask[4:9, 5:12], mask[12, 20] = 2, 1
        for feather in (0, 1, 2.5, 6):
            found = feathered(mask, feather)
            points = np.argwhere(mask > 0)
            for _ in range(60):
                y, x = (int(rng.integers(n)) for n in mask.shape)
                d = np.sqrt(((points - (y, x)) ** 2).sum(1)).min()
                literal = float(mask[y, x] > 0) if feather == 0 else max(0.0, 1 - d / feather)
                assert found[y, x] == pytest.approx(literal, abs=1e-6)
            assert np.array_equal(grown(mask, feather), found > 0)

    def test_nothing_has_no_feather(self) -> None:
        assert feathered(np.zeros((5, 6), dtype=np.int64), 3).max() == 0

    def test_pasting_leaves_every_byte_outside_as_it_was(self) -> None:
        rng = np.random.default_rng(1)
        image, painted = (rng.integers(0, 256, (40, 31, 3), dtype=np.uint8) for _ in range(2))
        mask = np.zeros((40, 31), dtype=np.int64)
        mask[10:20, 8:19] = 1
        weight = feathered(mask, 5)
        made = paste(painted, image, weight)
        assert np.array_equal(made[weight == 0], image[weight == 0])
        assert np.array_equal(made[mask > 0], painted[mask > 0])
        rim = (weight > 0) & (mask == 0)
        literal = weight[..., None] * painted.astype(float) + (1 - weight[..., None]) * image
        assert np.abs(made[rim] - literal[rim]).max() <= 0.5 + 1e-4

    def test_elsewhere_keeps_off_and_inside_and_keeps_its_shape(self) -> None:
        rng = np.random.default_rng(2)
        hole, taken = np.zeros((30, 30), dtype=bool), np.zeros((30, 30), dtype=bool)
        hole[2:6, 3:10], hole[6, 3:5], taken[10:25, 12:28] = True, True, True
        places = set()
        for _ in range(50):
            moved = elsewhere(hole, taken, rng)
            assert moved is not None
            assert moved.sum() == hole.sum()
            assert not (moved & taken).any()
            places.add(tuple(np.argwhere(moved)[0]))
        assert len(places) > 20
        assert elsewhere(hole, np.ones_like(hole), rng) is None


class TestTraining:
    def test_the_mix_of_holes_and_their_words(self, foundation: Path, data: Dataset) -> None:
        task = task_of(foundation, data, hole_lesion=0.5, hole_normal=0.25, hole_all=0.25, prompt_drop=0.1)
        draws = [Draw(k % len(task), 1000 + k) for k in range(400)]
        batch = task.batch(draws)
        kinds = []
        for draw, hole, prompt in zip(draws, batch["hole"][:, 0].bool().numpy(), batch["prompts"], strict=True):
            own = task.data.holes[draw.index]
            kind = "all" if hole.all() else "lesion" if np.array_equal(hole, own) else "normal"
            kinds.append(kind)
            if kind == "normal":
                assert not (hole & own).any()
            words = [task.data.grammar.empty] if kind == "normal" else task.data.bank.captions[draw.index]
            assert prompt in ("", *words)
        share = {kind: kinds.count(kind) / len(kinds) for kind in ("lesion", "normal", "all")}
        assert abs(share["all"] - 0.25) < 0.07
        assert share["normal"] > 0.08  # a hole that finds no place is the lesion
        assert share["lesion"] + share["normal"] + share["all"] == 1
        assert 0.04 < batch["prompts"].count("") / len(draws) < 0.17

    def test_a_row_depends_on_its_draw_alone(self, foundation: Path, data: Dataset) -> None:
        task = task_of(foundation, data)
        draws = [Draw(k, 7 * k) for k in range(6)]
        whole = task.batch(draws)
        for k in (0, 3, 5):
            one = task.batch([draws[k]])
            for name, value in one.items():
                assert value[0] == whole[name][k] if name == "prompts" else torch.equal(value[0], whole[name][k])

    def test_the_hole_of_an_image_is_its_mask_with_the_feather(self, foundation: Path, data: Dataset) -> None:
        task = task_of(foundation, data, feather=0.1, symmetries=False)
        for k, record in enumerate(data):
            assert np.array_equal(task.data.holes[k], grown(native_mask(record, data), 3.2))  # 32 px already

    def test_symmetries_turn_image_and_hole_together(self, foundation: Path, data: Dataset) -> None:
        task, n = task_of(foundation, data), len(data)
        assert len(task) == 8 * n
        for turn in range(8):
            image = np.rot90(task.data.images[0], turn % 4, axes=(1, 2))
            hole = np.rot90(task.data.holes[0], turn % 4)
            image, hole = (x[..., ::-1] if turn >= 4 else x for x in (image, hole))
            assert np.array_equal(task.data.images[turn * n], image)
            assert np.array_equal(task.data.holes[turn * n], hole)

    def test_an_image_whose_own_caption_names_a_place_is_not_turned(self, foundation: Path, data: Dataset) -> None:
        said = replace(data, records=(replace(data[0], caption="a polyp, upper left"), *data.records[1:]))
        task, n = task_of(foundation, said), len(data)
        assert len(task) == 8 * n
        for turn in range(8):
            assert np.array_equal(task.data.images[turn * n], task.data.images[0])
            assert np.array_equal(task.data.holes[turn * n], task.data.holes[0])
            assert task.data.bank.captions[turn * n] == ["a polyp, upper left"]
        assert not np.array_equal(task.data.images[n + 1], task.data.images[1])

    @pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
    def test_the_loss_against_its_literal_form(self, prediction: str, data: Dataset, tmp_path: Path) -> None:
        made = small_foundation("sd", tmp_path / "t", prediction)
        widen(made).save(tmp_path / "f")
        task = task_of(tmp_path / "f", data, lesion_weight=0.7, noise_weight=3.0)
        perturb(task.foundation.unet)
        batch = task.batch([Draw(k, k + 40) for k in range(5)])
        with torch.no_grad():
            ours = task.loss(batch, Progress(0, 10))
        f = task.foundation
        inside, whole = [], []
        for k in range(5):
            hole = batch["hole"][k : k + 1]
            z_m = f.encode(torch.where(hole > 0, torch.zeros(()), batch["image"][k : k + 1]))
            m = hole[:, :, ::4, ::4]
            t, z0, eps = (batch[name][k : k + 1] for name in ("t", "z0", "eps"))
            abar = f.scheduler.alphas_cumprod[t].item()
            z_t = abar**0.5 * z0 + (1 - abar) ** 0.5 * eps
            target = eps if prediction == "epsilon" else abar**0.5 * eps - (1 - abar) ** 0.5 * z0
            with torch.no_grad():
                o = predict(f.unet, torch.cat([z_t, m, z_m], 1), t, f.conditioning([batch["prompts"][k]]))
            weight = min(max(((1 - abar) / abar) ** 0.5, 1), 3) if prediction == "epsilon" else 1
            error = weight * ((o - target) ** 2)[0]
            whole.append(float(error.mean()))
            cells = m[0, 0] > 0
            inside.append(float(error[:, cells].mean()) if cells.any() else 0.0)
        assert float(ours["L"]) == pytest.approx(np.mean(whole), rel=1e-4)
        assert float(ours["L_hole"]) == pytest.approx(0.7 * np.mean(inside), rel=1e-4)

    def test_what_is_told_of_the_image_matters_once_it_is_trained(self, foundation: Path, data: Dataset) -> None:
        task = task_of(foundation, data)
        parameters = [p for phase in task.phases() for p in phase.parameters]
        batch = task.batch([Draw(k, k) for k in range(4)])
        sum(task.loss(batch, Progress(0, 1)).values()).backward()
        gradient = task.foundation.unet.conv_in.weight.grad
        assert gradient is not None
        assert all(float(gradient[:, k].abs().max()) > 0 for k in range(9))
        assert all(p.grad is not None for p in parameters)

    def test_it_learns(self, foundation: Path, data: Dataset) -> None:
        task = task_of(foundation, data, hole_lesion=1.0, hole_normal=0.0, hole_all=0.0)
        optimizer = torch.optim.AdamW([p for phase in task.phases() for p in phase.parameters], lr=2e-3)
        batch = task.batch([Draw(k, k) for k in range(8)])
        values = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = sum(task.loss(batch, Progress(0, 1)).values())
            loss.backward()
            optimizer.step()
            values.append(float(loss.detach()))
        assert values[-1] < 0.7 * values[0]

    def test_records_of_empty_masks_teach_normal_tissue(self, foundation: Path, tmp_path: Path) -> None:
        data = phantom_dataset(tmp_path / "d", "mucosa", 4, 32, seed=5)
        assert data[0].mask is not None
        Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(data[0].mask)
        task = task_of(foundation, data, hole_lesion=0.9, hole_normal=0.1, hole_all=0.0, prompt_drop=0.0)
        batch = task.batch([Draw(0, seed) for seed in range(20)])
        assert set(batch["prompts"]) == {task.data.grammar.empty}
        assert 0 < float(batch["hole"].mean()) < 0.9

    def test_gradient_checkpointing_changes_nothing(self, foundation: Path, data: Dataset) -> None:
        gradients = []
        for checkpointing in (False, True):
            task = task_of(foundation, data, gradient_checkpointing=checkpointing)
            batch = task.batch([Draw(k, k) for k in range(2)])
            sum(task.loss(batch, Progress(0, 1)).values()).backward()
            gradients.append([p.grad for p in task.foundation.unet.parameters()])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))

    def test_bf16_and_an_average_and_accumulation(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        config = quick(foundation, mixed_precision="bf16", ema_decay=0.5, gradient_accumulation_steps=2)
        sampler = model.load(model.train(data, config, tmp_path / "run"))
        assert sampler.foundation.unet.dtype == torch.float32

    def test_the_decoder_is_adapted_where_asked(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        """On a foundation that inpaints, the denoiser is not: it learns by inpainting."""
        wide = widen(Foundation.load(foundation))
        wide.save(tmp_path / "f")
        run = model.train(data, quick(tmp_path / "f", adapt_steps=1), tmp_path / "run")
        assert {path.name for path in (run / "adapted").iterdir()} >= {"decoder", "final"}
        assert not (run / "adapted" / "denoiser").exists()
        assert (run / "final" / "unet").is_dir()


class TestGrammars:
    @pytest.mark.parametrize("name", grammars())
    def test_a_run_keeps_its_grammar(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "g.yaml").write_text(as_yaml(Grammar.load(name)))
        assert Grammar.load(tmp_path / "g.yaml") == Grammar.load(name)

    def test_auto_is_the_kind_that_the_images_are_taken_for(self, data: Dataset) -> None:
        tiny, pairs = Foundation.load("tiny"), Pairs(data, 64)
        said = {name: Grammar.load(name) for name in grammars()}
        assert model.grammar_of(tiny, pairs, "auto") == said["polyp"]
        assert model.grammar_of(tiny, pairs, "skin") == said["skin"]

    def test_auto_is_generic_for_an_open_vocabulary(self, data: Dataset, tmp_path: Path) -> None:
        made = small_foundation("sd", tmp_path)
        assert model.grammar_of(made, Pairs(data, 32), "auto").name == "generic"


class TestRefusals:
    """Each before anything is written."""

    @pytest.fixture(scope="class")
    @classmethod
    def folders(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("folders")
        for kind in ("sd", "sdxl"):
            made = small_foundation(kind, root / f"t-{kind}")
            made.save(root / f"{kind}4")
            widen(made).save(root / f"{kind}9")
        index = json.loads((root / "sd4" / "model_index.json").read_text())
        shutil.copytree(root / "sd4", root / "claims")
        index["_class_name"] = "StableDiffusionInpaintPipeline"
        (root / "claims" / "model_index.json").write_text(json.dumps(index))
        return root

    def refused(self, data: Dataset, preset: str, line: str, out: Path, **changes: object) -> None:
        with pytest.raises(InputError, match=line) as caught:
            model.train(data, inpaint_config(preset, **changes), out / "run")
        assert "\n" not in str(caught.value)
        assert not (out / "run").exists()

    @pytest.mark.parametrize("name", ["sd4", "sdxl4", "claims"])
    def test_four_channels(self, name: str, folders: Path, data: Dataset, tmp_path: Path) -> None:
        line = "its U-Net reads 4 channels, not the 9 .*; give an inpainting folder, or widen=true"
        self.refused(data, str(folders / name), line, tmp_path)
        self.refused(data, f"{folders / name}+widen=false", line, tmp_path)

    def test_ours_may_be_left_narrow_on_purpose(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        self.refused(data, f"{foundation}+widen=false", "reads 4 channels", tmp_path)

    @pytest.mark.parametrize(
        ("preset", "name", "line"),
        [
            ("sd15", "sdxl9", "has two text encoders, as SDXL, .* take preset sdxl"),
            ("sd2", "sdxl9", "has two text encoders, as SDXL, .* take preset sdxl"),
            ("sdxl", "sd9", "has one text encoder, .* take preset sd15 or sd2"),
        ],
    )
    def test_another_layout(
        self, preset: str, name: str, line: str, folders: Path, data: Dataset, tmp_path: Path
    ) -> None:
        self.refused(data, f"{preset}+{folders / name}", line, tmp_path, resolution=32)

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("resolution=30", "--resolution 30: is not a multiple of 4"),
            ("grammar=dermatology", "dermatology: no such grammar"),
            ("normals=/nowhere/at/all", "/nowhere/at/all: does not exist"),
            ("mixed_precision=half", "--mixed-precision half"),
        ],
    )
    def test_options(self, words: str, line: str, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        self.refused(data, f"{foundation}+{words}", line, tmp_path)

    def test_no_masks(self, foundation: Path, data: Dataset, tmp_path: Path) -> None:
        bare = replace(data, records=tuple(replace(record, mask=None) for record in data))
        self.refused(bare, str(foundation), "has no mask to learn from", tmp_path)

    def test_a_prompt_for_masks_that_are_not_laid_yet(self, foundation: Path, data: Dataset) -> None:
        """What geometry decides is left to the mask: one that is moved, or made smaller to fit, has other words."""
        config, mask = inpaint_config(f"{foundation}+grammar=polyp"), native_mask(data[0], data)
        one, words = data.select([data[0].id]), Grammar.load("polyp").describe(None, mask)
        for slot in ("size", "shape"):
            line = f"says '{words[slot]}', but the {slot} is that of the mask, .*; write {{{slot}}} there"
            with pytest.raises(InputError, match=line) as caught:  # although it is true of the mask
                model.check(one, config, f"a photo of a {words[slot]} polyp")
            assert "\n" not in str(caught.value)
        model.check(one, config, "endoscopic photo of a {size} {shape} polyp with smooth surface")

    def test_a_prompt_with_room_for_the_words_of_any_mask(self, foundation: Path, data: Dataset) -> None:
        config, mask = inpaint_config(f"{foundation}+grammar=polyp"), native_mask(data[0], data)
        grammar, one = Grammar.load("polyp"), data.select([data[0].id])
        own, most = (
            len(tokens(word))
            for word in (
                grammar.describe(None, mask)["shape"],
                max(choices(grammar.slots["shape"]), key=lambda w: len(tokens(w))),
            )
        )
        assert own < most
        model.check(one, config, "{shape} " + "polyp " * (62 - most))
        with pytest.raises(InputError, match="has 63 tokens, and the text encoder reads 62"):
            model.check(one, config, "{shape} " + "polyp " * (63 - most))

    @pytest.mark.parametrize(
        ("name", "caption", "line"),
        [
            (None, "a polip", "the caption of mucosa-000001: prompt 'a polip': the model does not know"),
            (None, "polyp " * 63, "has 63 tokens, and the text encoder reads 62"),
            ("sd9", "polyp " * 63, "has 65 tokens, .* reads 64"),
        ],
    )
    def test_captions(
        self, name: str | None, caption: str, line: str, foundation: Path, folders: Path, data: Dataset, tmp_path: Path
    ) -> None:
        said = replace(data, records=(data[0], replace(data[1], caption=caption), *data.records[2:]))
        self.refused(said, str(folders / name if name else foundation), line, tmp_path)

    def test_a_grammar_with_words_that_the_foundation_does_not_know(
        self, foundation: Path, folders: Path, data: Dataset, tmp_path: Path
    ) -> None:
        text = as_yaml(Grammar.load("polyp"))
        (tmp_path / "g.yaml").write_text(text.replace("normal mucosa", "healthy mucosa"))
        self.refused(data, f"{foundation}+grammar={tmp_path / 'g.yaml'}", "does not know 'healthy'", tmp_path)
        model.check(data, inpaint_config(str(folders / "sd9"), grammar=str(tmp_path / "g.yaml")))

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("hole_all=0.5", "hole_lesion, hole_normal, hole_all: add up to 1.4; make it 1"),
            ("strength=0", "strength 0"),
            ("lr=-1e-4", "--lr -0.0001: must be 0 or a positive number"),
            ("lr=inf", "--lr inf: must be 0 or a positive number"),
            ("strength=1.5", "--strength 1.5: must lie between 0 and 1"),
            ("noise_weight=0.5", "--noise-weight 0.5: must be 1 or more"),
            ("feather=-1", "--feather -1: must be 0 or more"),
            ("tuning=locked", "--tuning locked: choose full or lora"),
            ("text=some", "--text some: choose mask or none or wrong"),
            ("lora_rank=0", "--lora-rank 0: must be 1 or more"),
            ("guidanze=2", "no option 'guidanze'; did you mean 'guidance'"),
            ("sd3", "no such preset; choose from tiny, sd15, sd2, sdxl, lora"),
        ],
    )
    def test_words_of_the_config(self, words: str, line: str) -> None:
        with pytest.raises(InputError, match=line):
            inpaint_config(words)


class TestPresets:
    def test_the_table(self) -> None:
        for name, side in (("sd15", 512), ("sd2", 512), ("sdxl", 1024)):
            config = inpaint_config(f"{name}+lora")
            assert config.foundation == f"{name}-inpaint"
            assert (config.resolution, config.tuning, config.lora_rank) == (side, "lora", 16)
            assert (config.lr, config.max_train_steps) == (1e-4, 2000)
            assert (config.strength, config.guidance, config.sampling_steps) == (0.95, 7.5, 50)
            assert inpaint_config(f"lora+{name}") == config  # in any order
        assert inpaint_config("tiny") == InpaintConfig()
        assert set(PRESETS) == {"tiny", "sd15", "sd2", "sdxl", "lora"}

    def test_those_of_the_script_for_sdxl_are_presets(self) -> None:
        script = Path(__file__).parents[2] / "runs" / "syndiff_sdxl.sh"
        stated = dict(re.findall(r'^    \[([\w-]+)\]="([^"]+)"$', script.read_text(), re.MULTILINE))
        assert set(stated) == {"zero-shot", "lora"}
        configs = {name: inpaint_config(preset) for name, preset in stated.items()}
        common = {(c.foundation, c.tuning, c.resolution, c.grammar, c.mixed_precision) for c in configs.values()}
        assert common == {("sdxl-inpaint", "lora", 1024, "polyp", "bf16")}
        assert {name: (c.lr, c.max_train_steps) for name, c in configs.items()} == {
            "zero-shot": (0, 1), "lora": (1e-4, 2000),
        }  # fmt: skip

    def test_the_options_of_sampling_are_options(self) -> None:
        entry = GENERATORS["inpaint"]
        assert entry.sampling == SAMPLING
        assert entry.needs == {"masks", "images"}
        assert entry.configure("sdxl", guidance=3.0).guidance == 3.0

    @pytest.mark.parametrize("kind", ["sd", "sdxl"])
    def test_the_recipes_run_on_folders_of_their_layout(self, kind: str, data: Dataset, tmp_path: Path) -> None:
        made = widen(small_foundation(kind, tmp_path / "t"))
        made.save(tmp_path / "f")
        preset = {"sd": "sd15", "sdxl": "sdxl"}[kind]
        small = {"resolution": 32, "max_train_steps": 1, "sampling_steps": 2, "normals": "regions"}
        run = model.train(data, inpaint_config(f"{preset}+{tmp_path / 'f'}", **small), tmp_path / "run")
        sampler = model.load(run)
        assert sampler.config.strength == 0.95
        weights = "unet/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "f" / weights).read_bytes() != (run / "final" / weights).read_bytes()
        x = to_signed(np.zeros((1, 3, 32, 32), dtype=np.uint8))
        assert torch.allclose(sampler.foundation.encode(x), made.encode(x), atol=1e-5)
