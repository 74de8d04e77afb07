"""Tests of the settings that generators on a latent diffusion foundation share, and of how wrong ones are refused."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path

import pytest

from morphogen.cli import main
from morphogen.errors import InputError
from morphogen.generators import GENERATORS
from morphogen.generators.latent_config import LatentConfig
from morphogen.generators.siamese.config import (
    CONTROLNET_PRESETS,
    ControlNetConfig,
    SiameseConfig,
    controlnet_config,
    siamese_config,
)

METHODS = ("siamese", "controlnet", "t2i-adapter", "arsdm", "inpaint", "dual")
REFUSED = (
    ("solver=euler", "--solver euler: choose dpm or ddim"),
    ("lr_scheduler=step", "--lr-scheduler step: choose constant or cosine"),
    ("mixed_precision=fp8", "--mixed-precision fp8: choose no or bf16 or fp16"),
    ("tuning=half", "--tuning half: choose full or "),
    ("optimizer=sgd", "--optimizer sgd: choose adamw or adamw8bit"),
    ("adapt_steps=-3", "--adapt-steps -3: is negative; give 0 for none"),
    ("lr_warmup_steps=-1", "--lr-warmup-steps -1: is negative; give 0 for none"),
    ("validation_steps=-1", "--validation-steps -1: is negative; give 0 for none"),
    ("max_train_steps=0", "--max-train-steps 0: must be positive"),
    ("train_batch_size=0", "--train-batch-size 0: must be positive"),
    ("gradient_accumulation_steps=-1", "--gradient-accumulation-steps -1: must be "),
    ("checkpointing_steps=0", "--checkpointing-steps 0: must be positive"),
    ("sampling_steps=0", "--sampling-steps 0: must be positive"),
    ("lr=-1", "--lr -1: must be "),
    ("lr=nan", "--lr nan: must be "),
    ("lr=inf", "--lr inf: must be "),
    ("resolution=-32", "--resolution -32: must be 0 or more"),
    ("weight_decay=-1", "--weight-decay -1: must be 0 or more"),
    ("max_grad_norm=nan", "--max-grad-norm nan: must be 0 or more"),
    ("guidance=inf", "--guidance inf: must be 0 or more"),
    ("seed=-1", "--seed -1: must be 0 or more"),
    ("ema_decay=1", "--ema-decay 1: must lie in 0 to 1, 1 excluded"),
    ("lora_rank=0", "--lora-rank 0: must be 1 or more"),
    ("prompt_drop=1.5", "--prompt-drop 1.5: must lie between 0 and 1"),
)


WITHOUT = {"t2i-adapter": ("tuning", "optimizer", "lora_rank"), "arsdm": ("lora_rank", "prompt_drop")}
"""Options that a method does not have."""


@pytest.mark.parametrize(
    ("method", "words", "line"),
    [(m, *row) for m in METHODS for row in REFUSED if row[0].partition("=")[0] not in WITHOUT.get(m, ())],
)
def test_what_cannot_be_is_refused(method: str, words: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        GENERATORS[method].configure(f"tiny+{words}")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
class TestOfEveryMethod:
    def test_nothing_is_a_value_where_it_means_none(self, method: str) -> None:
        none = (
            "adapt_steps=0+lr_warmup_steps=0+validation_steps=0+resolution=0+weight_decay=0+max_grad_norm=0+ema_decay=0"
        )
        config = GENERATORS[method].configure(f"tiny+{none}+guidance=0")
        assert (config.adapt_steps, config.guidance, config.ema_decay) == (0, 0, 0)

    def test_choices_and_limits_are_of_its_own_options(self, method: str) -> None:
        config = GENERATORS[method].config()
        assert issubclass(config, LatentConfig)
        assert config.method == method
        known = {field.name for field in fields(config)} | {"prompt_drop"}  # arsdm's is its condition_drop
        assert {*config.choices, *config.limits} <= known


def test_rates_and_parts_of_nothing() -> None:
    """What trains nothing is the foundation itself to `inpaint`; what has no parts counts the memory in `siamese`."""
    for method in METHODS:
        for option, meant in (("lr", ("inpaint",)), ("gradient_accumulation_steps", ("siamese", "controlnet"))):
            if method in meant:
                assert getattr(GENERATORS[method].configure(f"tiny+{option}=0"), option) == 0
            else:
                with pytest.raises(InputError, match=f"--{option.replace('_', '-')} 0: must be positive"):
                    GENERATORS[method].configure(f"tiny+{option}=0")


@pytest.mark.parametrize(
    ("method", "first", "digest"),
    [
        ("siamese", ["foundation", "adapt_steps", "hint"], "59b2a80912d4"),
        ("controlnet", ["foundation", "adapt_steps", "hint"], "977c4dccf3e8"),
        ("t2i-adapter", ["foundation", "adapt_steps", "blocks"], "51dfb7cdf2ff"),
        ("arsdm", ["foundation", "adapt_steps", "spade_width"], "45bc90d47ce1"),
        ("inpaint", ["foundation", "layout", "adapt_steps"], "385ab779f5e8"),
        ("dual", ["foundation", "layout", "adapt_steps"], "1e568431194b"),
    ],
)
def test_a_run_states_its_settings_in_one_order_for_good(method: str, first: list[str], digest: str) -> None:
    """Runs are known by the bytes of generator.json: those of the same settings have the same hash since the first."""
    names = list(GENERATORS[method].configure("mask-image" if method == "controlnet" else "tiny").stated())
    assert names[:3] == first
    assert hashlib.sha256(" ".join(names).encode()).hexdigest()[:12] == digest


class TestWhatActsOnNothing:
    @pytest.mark.parametrize(
        ("option", "word"),
        [
            ("w_i", "one"),
            ("w_c", "0.5"),
            ("adaptive_w_c", "true"),
            ("image_branch", "true"),
            ("online_augmentation", "true"),
            ("T_tau", "100"),
        ],
    )
    def test_is_refused_by_controlnet(self, option: str, word: str) -> None:
        line = f"--preset {option}={word}: controlnet trains the mask branch alone, without it; leave it out, or take"
        for presets in (f"tiny+{option}={word}", f"ablation-3+{option}={word}"):
            with pytest.raises(InputError) as caught:
                controlnet_config(presets)
            assert str(caught.value).startswith(line)
        value = {"true": True, "one": "one"}.get(word) or float(word)
        with pytest.raises(InputError, match=f"--preset {option}="):
            ControlNetConfig(**{option: value})  # type: ignore[arg-type]

    def test_its_own_values_and_presets_are_not(self) -> None:
        for preset in CONTROLNET_PRESETS:
            made = controlnet_config(f"{preset}+w_i=linear+w_c=0+adaptive_w_c=false")
            assert (made.image_branch, made.w_c, made.online_augmentation) == (False, 0.0, False)
            assert made == controlnet_config(preset)

    @pytest.mark.parametrize("presets", ["tiny+w_c=0", "ablation-3", "ablation-6"])
    def test_is_refused_by_siamese_without_the_consistency_loss(self, presets: str) -> None:
        assert siamese_config(presets).w_c == 0
        line = r"^--preset adaptive_w_c=true: weighs the Noise Consistency Loss, which is off \(w_c=0\); leave it out"
        with pytest.raises(InputError, match=line):
            siamese_config(f"{presets}+adaptive_w_c=true")

    @pytest.mark.parametrize("option", ["w_i=one", "adaptive_w_c=true"])
    def test_is_refused_by_siamese_without_an_image_branch(self, option: str) -> None:
        for presets in ("ablation-1", "tiny+image_branch=false"):
            assert isinstance(siamese_config(presets), SiameseConfig)
            with pytest.raises(InputError, match=rf"^--preset {option}: acts on the image branch, which is off"):
                siamese_config(f"{presets}+{option}")

    def test_ends_a_command_before_anything_is_written(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["train", "controlnet", str(tmp_path), "--out", str(tmp_path / "run"), "--preset", "tiny+w_i=one"]
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "run").exists()
