"""``morphogen import-weights FILE --out RUN``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from morphogen.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class ImportWeights(Verb):
    """Make a run of ours from a foreign checkpoint: Siamese-Diffusion's merged file, or a ControlNet.

    Tensors alone are read; nothing in the file is executed. `morphogen sample RUN` then paints masks with it.
    """

    source: tyro.conf.Positional[Path]
    """A .pth, .ckpt, .bin or .safetensors file in the layout of the LDM repositories, or a ControlNet folder."""
    out: Path
    """Run folder to write."""
    preset: str = "sd15"
    """Preset that the weights belong to; sd15+FOLDER takes Stable Diffusion 1.5 from a folder."""
    classes: tuple[str, ...] = ("background", "lesion")
    """Class names by label id, background first."""
    prompt: str = "a photo of a polyp"
    """Default prompt of the samples."""

    def run(self) -> dict[str, Any]:
        """Convert and write.

        Raises:
            InputError: The checkpoint cannot be read or does not fit the foundation, or `out` holds another run.
        """
        from morphogen.generators.siamese.config import siamese_config
        from morphogen.generators.siamese.import_weights import import_weights
        from morphogen.progress import say

        run = import_weights(self.source, siamese_config(self.preset), self.classes, self.prompt, self.out)
        say(f"imported: {run}")
        return {"run": str(run)}
