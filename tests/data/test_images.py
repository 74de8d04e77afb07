"""Images: every mode that users have, and every file that a loader must survive."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.data.images import image_size, is_image, load_image, load_rgb, stem, to_rgb_uint8
from morphogen.data.records import Record
from morphogen.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png_header(path: Path, width: int, height: int) -> Path:
    """A PNG that is nothing but a header, by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


def record(path: Path) -> Record:
    return Record(id=path.stem, image=path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_rgb_keeps_its_values(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).save(path)
    assert np.array_equal(load_image(record(path)), COLOUR)
    assert image_size(path) == (6, 9)


def test_16_bits_stay_16_bits(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (5, 7)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    loaded = load_image(record(tmp_path / "a.png"))
    assert loaded.dtype == np.uint16
    assert np.array_equal(loaded, values)


def test_float_tiff_stays_float(tmp_path: Path) -> None:
    values = RNG.normal(size=(5, 7)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array_equal(load_image(record(tmp_path / "a.tif")), values)


def test_palette_rgba_and_bilevel(tmp_path: Path) -> None:
    quantised = Image.fromarray(COLOUR).quantize(200)
    quantised.save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([COLOUR, np.full((6, 9), 40, np.uint8)])).save(tmp_path / "rgba.png")
    Image.fromarray(COLOUR[..., 0] > 128).save(tmp_path / "bits.png")
    assert np.array_equal(load_image(record(tmp_path / "palette.png")), np.array(quantised.convert("RGB")))
    assert np.array_equal(load_image(record(tmp_path / "rgba.png")), COLOUR)
    assert np.array_equal(load_image(record(tmp_path / "bits.png")), np.where(COLOUR[..., 0] > 128, 255, 0))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_rotation_only_where_the_mask_asks_for_it(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / "stored.png")
    Image.fromarray(np.zeros((9, 6), np.uint8)).save(tmp_path / "turned.png")
    as_stored = load_image(Record("a", tmp_path / "a.png", tmp_path / "stored.png"))
    turned = load_image(Record("a", tmp_path / "a.png", tmp_path / "turned.png"))
    upright = {3: COLOUR, 6: np.rot90(COLOUR, -1), 8: np.rot90(COLOUR, 1)}[orientation]
    assert np.array_equal(as_stored, COLOUR)
    assert np.array_equal(turned, upright)


def test_a_huge_header_is_one_line_and_no_decompression(tmp_path: Path) -> None:
    path = png_header(tmp_path / "bomb.png", 60_000, 60_000)
    for read in (lambda: image_size(path), lambda: load_image(record(path))):
        with pytest.raises(InputError, match=r"bomb\.png: its header announces more than 80 million pixels; crop"):
            read()


def test_a_header_between_our_cap_and_pillows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="80 million"):
        image_size(png_header(tmp_path / "big.png", 9_300, 9_300))


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    Image.fromarray(COLOUR).save(tmp_path / "gif.png", format="GIF")
    for name, fault in {
        "text.png": "is not a PNG",
        "cut.png": "cannot be decoded",
        "gif.png": "is not a PNG",
        "none.png": "does not exist",
        "text.nii": "not a readable NIfTI",
    }.items():
        if name.endswith(".nii"):
            (tmp_path / name).write_text("hello")
        item = Record("x", tmp_path / name, plane=(2, 0) if name.endswith(".nii") else None)
        with pytest.raises(InputError, match=fault) as caught:
            load_image(item)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_truncation_and_flip_is_an_input_error_or_an_image(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "tif", "bmp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(COLOUR).save(path)
        whole = path.read_bytes()
        for trial in range(60):
            broken = bytearray(whole[: RNG.integers(1, len(whole))] if trial % 2 else whole)
            broken[RNG.integers(len(broken))] ^= int(RNG.integers(1, 256))
            path.write_bytes(broken)
            with contextlib.suppress(InputError):
                assert load_image(record(path)).ndim in (2, 3)


def test_a_tiff_of_several_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(COLOUR), Image.fromarray(COLOUR)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="several pages"):
        load_image(record(tmp_path / "a.tif"))


def test_to_rgb_uint8_windows() -> None:
    ramp = np.linspace(0, 4095, 1000).reshape(20, 50).astype(np.uint16)
    assert to_rgb_uint8(ramp, (0, 4095)).shape == (20, 50, 3)
    assert np.array_equal(to_rgb_uint8(ramp, (0, 4095))[..., 1], np.round(ramp / 4095 * 255).astype(np.uint8))
    stretched = to_rgb_uint8(ramp)
    assert stretched.min() == 0
    assert stretched.max() == 255
    assert (to_rgb_uint8(np.full((3, 3), np.nan, np.float32)) == 0).all()
    assert np.array_equal(to_rgb_uint8(COLOUR), COLOUR)
    assert np.array_equal(to_rgb_uint8(COLOUR[..., 0])[..., 2], COLOUR[..., 0])


def test_slices_of_a_volume_share_one_window(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = RNG.normal(size=(6, 5, 4)).astype(np.float32)
    volume[..., 0] /= 100
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii.gz")
    items = [Record(f"v{i}", tmp_path / "v.nii.gz", plane=(2, i)) for i in range(4)]
    assert np.array_equal(load_image(items[1]), volume[..., 1])
    low, high = np.percentile(volume, (0.5, 99.5))
    expected = np.clip(np.round((volume - low) / (high - low) * 255), 0, 255)
    for i, item in enumerate(items):
        assert np.abs(load_rgb(item)[..., 0] - expected[..., i]).max() <= 1


def test_names() -> None:
    assert stem(Path("a/b.c.nii.gz")) == "b.c"
    assert stem(Path("a/b.c.png")) == "b.c"
    assert is_image(Path("x.JPG"))
    assert not is_image(Path("._x.png"))
    assert not is_image(Path("x.gif"))
