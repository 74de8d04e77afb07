"""The layout `folders`: images/ and masks/ with equal stems, captions in .txt files beside the images."""

from __future__ import annotations

from pathlib import Path

from morphogen.data.faults import Fault, Sink
from morphogen.data.images import is_image, stem
from morphogen.data.records import Record

NO_MASK = "has no mask"


def recognise(root: Path) -> bool:
    """Whether there is an images/ folder, or images in the folder itself."""
    return (root / "images").is_dir() or any(is_image(path) for path in root.iterdir())


def scan(root: Path, sink: Sink) -> list[Record]:
    """One record an image file; an image without a mask is a fault where masks/ exists."""
    image_folder = root / "images" if (root / "images").is_dir() else root
    masks = _by_stem(root / "masks", sink) if (root / "masks").is_dir() else {}
    images = _by_stem(image_folder, sink)
    for name, path in masks.items():
        if name not in images:
            sink(Fault(path, "has no image of that stem", "add the image or remove the mask", fatal=False))
    records = []
    for name, path in images.items():
        mask = masks.get(name)
        if mask is None and (root / "masks").is_dir():
            remedy = f"add masks/{name}.png, or remove the image"
            sink(Fault(path, f"{NO_MASK} in masks/", remedy))
        records.append(Record(id=name, image=path, mask=mask, caption=caption_beside(path)))
    return records


def caption_beside(image: Path) -> str | None:
    """Text of the .txt file of the same stem, or None."""
    text = image.with_name(f"{stem(image)}.txt")
    return text.read_text(encoding="utf-8", errors="replace").strip() or None if text.is_file() else None


def _by_stem(folder: Path, sink: Sink) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_image(path):
            continue
        if stem(path) in files:
            sink(Fault(path, f"has the stem of {files[stem(path)].name}", "rename or remove one of the two"))
            continue
        files[stem(path)] = path
    return files
