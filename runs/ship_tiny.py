"""Put a pretrained foundation into the package, in half precision.

    python runs/ship_tiny.py OUT/final

The model card, src/morphogen/foundation/tiny/README.md, is kept.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from morphogen.foundation.model import TINY, Foundation


def main() -> None:
    foundation = Foundation.load(Path(sys.argv[1]))
    for part in (p for p in TINY.glob("*") if p.name != "README.md"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    TINY.mkdir(exist_ok=True)
    foundation.save(TINY, torch.float16)
    foundation.copy_hint(TINY)
    files = sorted(TINY.rglob("*.safetensors"))
    print("\n".join(f"{file.relative_to(TINY)}: {file.stat().st_size / 1e6:.2f} MB" for file in files))
    print(f"together {sum(file.stat().st_size for file in files) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
