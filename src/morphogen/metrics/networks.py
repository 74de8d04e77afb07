"""The networks behind the rows of `features.EXTRACTORS`: from a package, the hub or a folder, as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.hub import hub_folder
from morphogen.metrics import weights
from morphogen.metrics.features import Extractor

WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS)


@dataclass(frozen=True)
class Network:
    """An extractor, ready to work.

    Attributes:
        spec: Its row.
        module: Prepared images (B, 3, size, size) to features (B, D).
        device: Where it works.
        source: Package, hub id or folder that the weights came from.
        sha256: Of the weight file that was read.
    """

    spec: Extractor
    module: Callable[[Tensor], Tensor]
    device: str
    source: str
    sha256: str

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Prepared images (B, 3, size, size) float32 to (B, D) float64."""
        with torch.inference_mode():
            return self.module(torch.from_numpy(pixels).to(self.device)).double().cpu().numpy()

    @property
    def provenance(self) -> dict[str, Any]:
        """What a result says of it; `published` is false where the weights are others than those of the row."""
        spec = self.spec
        published = self.sha256 == spec.sha256
        return {"source": self.source, "sha256": self.sha256, "published": published, "layer": spec.layer,
                "dim": spec.dim, "size": spec.size}  # fmt: skip


def available(spec: Extractor, folder: Path | None = None) -> bool:
    """Whether `load_network` would find the weights without a network connection."""
    if folder is not None or not spec.packaged:
        return folder is not None or _cached(spec.source) is not None
    return weights.available(spec.source)


def require(spec: Extractor, folder: Path | None = None) -> None:
    """Find the weights of an extractor, or download them, without loading them.

    Raises:
        InputError: They are not to be had.
    """
    if spec.packaged:
        weights.locate(spec.source)
        if folder is not None:
            raise InputError(f"--features-folder {spec.id}: its weights come with a package; leave the folder out")
        return
    found = hub_files(spec) if folder is None else folder
    for name in FILES:
        if not (found / name).is_file():
            raise InputError(f"{found}: holds no {name}; give the folder of {spec.source} in safetensors")


def load_network(spec: Extractor, device: str = "cpu", folder: Path | None = None) -> Network:
    """Load an extractor.

    Args:
        spec: Its row.
        device: A torch device.
        folder: config.json and model.safetensors, as transformers saves them; else the hub's cache, then the hub.

    Raises:
        InputError: The weights are missing, damaged, of another model, or not those of the row's sha256 (which a folder
            that the user names need not hold: a saved copy of the same weights has another hash).
    """
    require(spec, folder)
    if spec.packaged:
        module = BUILDERS[spec.network](spec.source).to(device)
        return Network(spec, module, device, weights.MEMBERS[spec.source].package, spec.sha256)
    found = hub_files(spec) if folder is None else folder
    digest = _sha256(found / WEIGHTS)
    if folder is None and digest != spec.sha256:
        raise InputError(f"{found / WEIGHTS}: is not the file of {spec.source}; remove it and download it again")
    module = BUILDERS[spec.network](spec, found).to(device)
    return Network(spec, module, device, str(folder or spec.source), digest)


def hub_files(spec: Extractor) -> Path:
    """Folder with the files of a hub extractor: from the cache, else downloaded.

    Raises:
        InputError: They are in neither place.
    """
    remedy = f"download {' and '.join(FILES)} elsewhere and give --features-folder {spec.id}=FOLDER"
    cached = _cached(spec.source)
    return cached or hub_folder(spec.source, FILES, remedy, called=f"{spec.id} ({spec.source})")


def _cached(source: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = source.partition("@")
    paths = [try_to_load_from_cache(repository, name, revision=revision) for name in FILES]
    return Path(str(paths[0])).parent if all(isinstance(path, str) for path in paths) else None


class Clip(nn.Module):
    """Image embeddings of CLIP (Radford et al., 2021), projected into the space shared with text; not normalised."""

    def __init__(self, spec: Extractor, folder: Path) -> None:
        from transformers import CLIPVisionModelWithProjection

        super().__init__()
        self.net = from_folder(CLIPVisionModelWithProjection, folder)
        _refuse_other(spec, folder, self.net.config.projection_dim, self.net.config.image_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, D)."""
        embeddings: Tensor = self.net(pixels).image_embeds
        return embeddings


class Dinov2(nn.Module):
    """Class token of DINOv2 (Oquab et al., 2023) after the last layer norm."""

    def __init__(self, spec: Extractor, folder: Path) -> None:
        from transformers import Dinov2Model

        super().__init__()
        self.net = from_folder(Dinov2Model, folder)
        _refuse_other(spec, folder, self.net.config.hidden_size)
        table = self.net.embeddings.position_embeddings
        side = spec.size // self.net.config.patch_size
        table.data = published_positions(table.data, side)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, size, size) -> (B, D)."""
        tokens: Tensor = self.net(pixels).last_hidden_state
        return tokens[:, 0]


def published_positions(table: Tensor, side: int, offset: float = 0.1) -> Tensor:
    """Position embeddings of DINOv2 for another number of patches, as the published models compute them.

    Bicubic, with the scale taken from side + 0.1: transformers takes it from the side itself, which shifts the grid by
    up to a tenth of a patch.

    Args:
        table: (1, 1 + M * M, D), the class token's first.
        side: Patches along a side.
        offset: Added to `side` for the scale.

    Returns:
        (1, 1 + side * side, D).
    """
    known = round((table.shape[1] - 1) ** 0.5)
    if known == side:
        return table
    grid = table[:, 1:].unflatten(1, (known, known)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=(side + offset) / known, mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


def _lite0(source: str) -> nn.Module:
    from morphogen.metrics.lite0 import Lite0

    with torch.device("meta"):
        model = Lite0()
    model.load_state_dict(weights.load_member(source), strict=True, assign=True)
    return _Embed(model.eval())


class _Embed(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.net.embed(pixels)
        return features


BUILDERS: dict[str, Callable[..., Any]] = {
    "torchscript": lambda source: weights.load_member(source),
    "lite0": _lite0,
    "clip": Clip,
    "dinov2": Dinov2,
}


def from_folder(kind: Any, folder: Path) -> Any:
    """The model, every tensor of it from the folder."""
    try:
        with quiet():
            model, info = kind.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, local_files_only=True
            )
    except Exception as error:  # JSON, keys, shapes, safetensors: whatever a damaged folder makes of itself
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: is not a whole model in safetensors ({line}); save it again") from error
    if missing := sorted(info["missing_keys"]):  # which transformers would fill with random numbers
        raise InputError(f"{folder}: lacks {missing[0]} and {len(missing) - 1} other tensors; save the model again")
    return model.eval()


def _refuse_other(spec: Extractor, folder: Path, dim: int, size: int | None = None) -> None:
    if dim != spec.dim or size not in (None, spec.size):
        raise InputError(f"{folder}: is another model than {spec.id}, with {dim} features; give {spec.source}")


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and its report of what a file holds beside the model; settings are put back."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
