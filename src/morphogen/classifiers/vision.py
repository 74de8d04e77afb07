"""ResNet-50, ViT-B/16 and ConvNeXt-T of transformers, by config or from published weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from morphogen.errors import InputError
from morphogen.hub import hub_folder, is_hub_id
from morphogen.metrics.networks import quiet

NONE = "none"
_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class VisionConfig:
    """Where the network starts.

    Attributes:
        weights: ``none`` for a random start, or the published model: a folder with config.json and model.safetensors,
            or a hub id (owner/name@revision). Its last layer is left aside.

    Raises:
        InputError: It names nothing.
    """

    weights: str = NONE

    def __post_init__(self) -> None:
        if not isinstance(self.weights, str) or not self.weights:
            raise InputError(f"weights {self.weights!r}: give {NONE}, a folder or a hub id (owner/name@revision)")


class VisionClassifier(nn.Module):
    """A model of transformers without its last layer, and a linear layer on its pooled output."""

    statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    """Mean and standard deviation of RGB in [0, 1] that the published weights were trained with."""
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, channels: int, n_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(channels, n_classes)
        for name, values in zip(("mean", "std"), self.statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, R, R) in [-1, 1] -> (B, K) logits."""
        return self.head(self.pooled((image * 0.5 + 0.5 - self.mean) / self.std))

    def pooled(self, image: Tensor) -> Tensor:
        """Normalised (B, 3, R, R) -> (B, C)."""
        found: Tensor = self.encoder(image).pooler_output
        return found.flatten(1)


class TokenClassifier(VisionClassifier):
    """The same on the class token of a vision transformer."""

    statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def pooled(self, image: Tensor) -> Tensor:
        """Normalised (B, 3, R, R) -> (B, C); the positions are interpolated to the image's grid."""
        found: Tensor = self.encoder(image, interpolate_pos_encoding=True).last_hidden_state
        return found[:, 0]


def build_resnet50(n_classes: int, config: VisionConfig, pretrained: bool = True) -> nn.Module:
    """ResNet-50, stride in the 3 x 3 convolutions; see `morphogen.classifiers.build`."""
    from transformers import ResNetConfig, ResNetModel

    ours = ResNetConfig()
    return VisionClassifier(_encoder(ResNetModel, ours, config, pretrained), ours.hidden_sizes[-1], n_classes)


def build_vit_b16(n_classes: int, config: VisionConfig, pretrained: bool = True) -> nn.Module:
    """ViT-B/16; see `morphogen.classifiers.build`."""
    from transformers import ViTConfig, ViTModel

    ours = ViTConfig()
    encoder = _encoder(ViTModel, ours, config, pretrained, add_pooling_layer=False)
    return TokenClassifier(encoder, ours.hidden_size, n_classes)


def build_convnext(n_classes: int, config: VisionConfig, pretrained: bool = True) -> nn.Module:
    """ConvNeXt-T; see `morphogen.classifiers.build`."""
    from transformers import ConvNextConfig, ConvNextModel

    ours = ConvNextConfig()
    return VisionClassifier(_encoder(ConvNextModel, ours, config, pretrained), ours.hidden_sizes[-1], n_classes)


def _encoder(model: Any, architecture: Any, config: VisionConfig, pretrained: bool, **options: Any) -> nn.Module:
    """The model of an architecture, random or with published weights, every tensor of which must be found."""
    if not pretrained or config.weights == NONE:
        made: nn.Module = model(architecture, **options)
        return made
    folder = _folder(config.weights)
    try:
        with quiet():
            loaded, found = model.from_pretrained(
                folder,
                config=architecture,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                **options,
            )
    except Exception as error:  # shapes, safetensors, JSON: whatever a foreign file makes of itself
        raise InputError(f"{folder}: {_fault(model, ' '.join(str(error).split())[:160])}") from error
    if missing := sorted(found["missing_keys"]):
        raise InputError(f"{folder}: {_fault(model, f'it lacks {missing[0]}')}")
    ours: nn.Module = loaded.train()
    return ours


def _fault(model: Any, why: str) -> str:
    return f"does not hold the weights of {model.__name__} ({why}); give a model of the same architecture and size"


def _folder(name: str) -> Path:
    """The local folder behind a folder's name or a hub id."""
    if is_hub_id(name) and not Path(name).exists():
        remedy = f"download it where there is a network and give weights=FOLDER, or start with weights={NONE}"
        return hub_folder(name, _FILES, remedy)
    missing = [file for file in _FILES if not (Path(name) / file).is_file()]
    if missing:
        raise InputError(
            f"{name}: holds no {missing[0]}; give weights=FOLDER of a model of transformers in safetensors, a hub id "
            f"as owner/name@revision, or {NONE}"
        )
    return Path(name)
