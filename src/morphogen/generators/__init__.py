"""The generators, as a table that names them without importing them."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.errors import InputError

if TYPE_CHECKING:
    from morphogen.data.records import Dataset
    from morphogen.sampling.jobs import Sampler


@dataclass(frozen=True)
class GeneratorEntry:
    """One generator.

    Attributes:
        name: Name on the command line.
        summary: What it does, in one line.
        source: Where it comes from.
        needs: Which of ``masks``, ``images``, ``prompts`` must be given for sampling.
        module: Import path of a module with ``CONFIG``, ``check``, ``train`` and ``load``.
        bare_images: Whether images without a mask train it, too.
    """

    name: str
    summary: str
    source: str
    needs: frozenset[str]
    module: str
    bare_images: bool = False

    def config(self) -> type[Any]:
        """The frozen dataclass that configures its training."""
        config: type[Any] = import_module(self.module).CONFIG
        return config

    @property
    def sampling(self) -> tuple[str, ...]:
        """Fields of its config that are for sampling alone: one trained generator serves all their values."""
        return tuple(getattr(import_module(self.module), "SAMPLING", ()))

    @property
    def has_presets(self) -> bool:
        """Whether `configure` takes any."""
        return hasattr(import_module(self.module), "preset_config")

    def configure(self, preset: str | None = None, **changes: Any) -> Any:
        """Its config: the defaults, or those of a preset (a name, a foundation's folder or hub id), with `changes`.

        Raises:
            InputError: The generator has no such preset or option.
        """
        module = import_module(self.module)
        if preset is not None and not self.has_presets:
            raise InputError(f"--preset {preset}: {self.name} has no presets; leave it out")
        base = module.preset_config(preset) if preset is not None else module.CONFIG()
        known = {field.name for field in fields(base)}
        for name in changes:
            if name not in known:
                raise InputError(f"--{name.replace('_', '-')}: {self.name} has no such option; leave it out")
        return replace(base, **changes)

    def check(self, data: Dataset, config: Any, **stated: Any) -> None:
        """Refuse what `train` would refuse of `data` and `config`, before anything is written.

        Args:
            data: What to train on.
            config: How.
            **stated: Of those that paint into images: ``prompt``, what will be painted, where that is known.

        Raises:
            InputError: It would.
        """
        import_module(self.module).check(data, config, **stated)

    def check_transform(self, config: Any, transform: str) -> None:
        """Refuse a mask transform that its sampling could not follow.

        Raises:
            InputError: It reads more of a record than the mask, and the rest cannot be transformed so.
        """
        refuse = getattr(import_module(self.module), "refuse_mask_transform", None)
        if refuse is not None:
            refuse(config, transform)

    def check_classes(self, data: Dataset, config: Any, classes: Collection[str | None]) -> None:
        """Refuse classes of which its sampling could make no pair, as it chooses the images that it learns from.

        Raises:
            InputError: There is such a class.
        """
        refuse = getattr(import_module(self.module), "refuse_classes", None)
        if refuse is not None:
            refuse(data, config, classes)

    def segmenter_of_loss(self, config: Any) -> str | None:
        """The segmenter that a loss of its training asks, as ``name+option=value``; None where none does."""
        asked: str | None = getattr(import_module(self.module), "segmenter_of_loss", lambda config: None)(config)
        return asked

    def train(self, data: Dataset, config: Any, out: Path) -> Path:
        """Train on `data`; returns the run folder `out`."""
        run: Path = import_module(self.module).train(data, config, out)
        return run

    def load(self, run: Path, device: str = "cpu") -> Sampler:
        """The sampler of a finished run folder."""
        sampler: Sampler = import_module(self.module).load(run, device)
        return sampler


_ENTRIES = (
    GeneratorEntry(
        name="copy-paste",
        summary="pastes real lesions onto other real images, blended in the gradient domain",
        source="ours; blending after Perez et al., Poisson Image Editing, 2003",
        needs=frozenset({"masks"}),
        module="morphogen.generators.copy_paste.model",
    ),
    GeneratorEntry(
        name="siamese",
        summary="paints images for masks with two branches of one latent diffusion model (ControlNet is a preset)",
        source="Qiu et al., Siamese-Diffusion, CVPR 2025, arXiv 2505.06068",
        needs=frozenset({"masks"}),
        module="morphogen.generators.siamese.model",
    ),
    GeneratorEntry(
        name="controlnet",
        summary="paints images for masks with the mask branch alone (siamese's folder, another preset)",
        source="Zhang et al., Adding Conditional Control to Text-to-Image Diffusion, ICCV 2023, arXiv 2302.05543",
        needs=frozenset({"masks"}),
        module="morphogen.generators.siamese.controlnet",
    ),
    GeneratorEntry(
        name="t2i-adapter",
        summary="paints images for masks with a small network that feeds a frozen diffusion model",
        source="Mou et al., T2I-Adapter, AAAI 2024, arXiv 2302.08453",
        needs=frozenset({"masks"}),
        module="morphogen.generators.t2i_adapter.model",
    ),
    GeneratorEntry(
        name="singan-seg",
        summary="makes variations of single training pairs, image and mask together, a small GAN pyramid for each",
        source="Thambawita et al., SinGAN-Seg, PLOS ONE 2022, arXiv 2107.00471, on SinGAN, arXiv 1905.01164",
        needs=frozenset(),
        module="morphogen.generators.singan_seg.model",
    ),
    GeneratorEntry(
        name="arsdm",
        summary="paints images for masks, small lesions weighed up, refined by a segmenter that has to find them",
        source="Du et al., ArSDM, MICCAI 2023, arXiv 2309.01111, on SDM, arXiv 2207.00050",
        needs=frozenset({"masks"}),
        module="morphogen.generators.arsdm.model",
    ),
    GeneratorEntry(
        name="inpaint",
        summary="paints lesions by words and masks into normal images, which stay bit-exact around them",
        source="Aqeel et al., Latent Space Synergy (SynDiff), 2025, arXiv 2507.15361",
        needs=frozenset({"masks", "images"}),
        module="morphogen.generators.inpaint.model",
    ),
    GeneratorEntry(
        name="dual",
        summary="makes image and mask together of words, as one latent",
        source="after Xu, SkinDualGen, 2025, arXiv 2507.19970",
        needs=frozenset(),
        module="morphogen.generators.dual.model",
        bare_images=True,
    ),
)
GENERATORS: dict[str, GeneratorEntry] = {entry.name: entry for entry in _ENTRIES}


def load_sampler(run: Path, device: str = "cpu") -> Sampler:
    """The sampler of a run folder, whichever generator made it.

    Raises:
        InputError: `run` is not the folder of a finished generator.
    """
    path = run / "final" / "generator.json"
    if not path.is_file():
        raise InputError(f"{run}: holds no trained generator (final/generator.json); make one with `morphogen train`")
    try:
        name = json.loads(path.read_text())["generator"]
        entry = GENERATORS[name]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: names no generator of this version; train it again") from error
    return entry.load(run, device)
