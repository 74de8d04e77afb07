"""The audit finds copies, mirrored copies and re-encoded ones, and leaves new images alone."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphogen.audit import nearest
from morphogen.audit.nearest import ImageSet, audit, image_set
from morphogen.data.phantoms import phantom
from morphogen.errors import InputError


def pictures(seeds: range, size: int = 48) -> list[np.ndarray]:
    return [phantom("mucosa", seed, size)[0] for seed in seeds]


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i:02d}" for i in range(n)]


def recode(image: np.ndarray) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


@pytest.fixture(scope="module")
def real() -> ImageSet:
    return image_set(names("r", 40), pictures(range(40)))


def test_copies_are_found(real: ImageSet) -> None:
    originals = pictures(range(40))
    copies = [
        originals[3],
        recode(originals[5]),
        originals[7][:, ::-1],
        originals[11][::-1, ::-1],
        np.clip(originals[13].astype(float) * 0.8 + 20, 0, 255).astype(np.uint8),
    ]
    result = audit(image_set(names("s", 5), copies), real)
    found = {pair["id"]: pair["nearest"] for pair in result["pairs"] if pair["flagged"]}
    assert found == {"s00": "r03", "s01": "r05", "s02": "r07", "s03": "r11", "s04": "r13"}
    assert (result["flagged"], result["rate"], result["n"], result["n_real"]) == (5, 1.0, 5, 40)
    assert all(pair["hash_distance"] <= 6 for pair in result["pairs"])


def test_new_images_are_left_alone() -> None:
    """About one in a hundred is flagged where synthetic and real images come from one distribution."""
    real = image_set(names("r", 200), pictures(range(200), 32))
    result = audit(image_set(names("s", 100), pictures(range(1000, 1100), 32)), real)
    assert result["flagged"] <= 5
    assert result["rate_of_real"] <= 0.02
    closeness = [pair["distances"]["pixel"] for pair in result["pairs"]]
    assert closeness == sorted(closeness)


def test_distances_match_the_literal_statement(real: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_BLOCK", 3)
    synthetic = image_set(names("s", 7), pictures(range(200, 207)))
    result = audit(synthetic, real)

    def literal(thumbnail: np.ndarray, other: np.ndarray) -> float:
        turned = [thumbnail, thumbnail[::-1], thumbnail[:, ::-1], thumbnail[::-1, ::-1]]
        return 1 - max(np.corrcoef(t.ravel(), other.ravel())[0, 1] for t in turned)

    for pair in result["pairs"]:
        distances = [literal(synthetic.thumbnails[int(pair["id"][1:])], other) for other in real.thumbnails]
        assert pair["distances"]["pixel"] == pytest.approx(min(distances), abs=1e-6)
        assert pair["nearest"] == f"r{int(np.argmin(distances)):02d}"
    others = [
        min(literal(a, b) for j, b in enumerate(real.thumbnails) if i != j) for i, a in enumerate(real.thumbnails)
    ]
    assert result["threshold"]["pixel"] == pytest.approx(np.percentile(others, 1), abs=1e-6)


def test_frames_of_one_subject_set_no_threshold() -> None:
    """Two nearly equal frames of every subject: were they taken for two subjects, only exact copies would be found."""
    frames = [frame for image in pictures(range(20)) for frame in (image, np.roll(image, 1, axis=1))]
    subjects = [f"case {i // 2}" for i in range(40)]
    known = audit(image_set(["s"], pictures(range(99, 100))), image_set(names("r", 40), frames, subjects))
    loose = ImageSet(names("r", 40), image_set([], frames).thumbnails, None, names("r", 40))
    naive = audit(image_set(["s"], pictures(range(99, 100))), loose)
    assert known["threshold"]["pixel"] > 3 * naive["threshold"]["pixel"]


def test_features_are_a_second_distance(real: ImageSet) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 16))
    with_features = ImageSet(real.ids, real.thumbnails, features)
    new = image_set(names("s", 2), pictures(range(300, 302)))
    synthetic = ImageSet(new.ids, new.thumbnails, np.stack([2.5 * features[8], rng.normal(size=16)]))
    result = audit(synthetic, with_features)
    first = result["pairs"][0]
    assert (first["id"], first["nearest"], first["by"], first["flagged"]) == ("s00", "r08", "inception", True)
    assert first["distances"]["inception"] == pytest.approx(0, abs=1e-12)
    cosines = features @ features.T / np.outer(*2 * [np.linalg.norm(features, axis=1)])
    np.fill_diagonal(cosines, -1)
    assert result["threshold"]["inception"] == pytest.approx(np.percentile(1 - cosines.max(axis=1), 1))


def test_flat_images_and_too_few_real_ones() -> None:
    flat = [np.full((32, 32, 3), value, np.uint8) for value in (10, 200)]
    assert audit(image_set(names("s", 2), flat), image_set(names("r", 3), pictures(range(3))))["flagged"] == 0
    one = pictures(range(1))[0]
    with pytest.raises(InputError, match="give at least 2"):
        audit(image_set(["s"], flat[:1]), image_set(names("r", 2), [one, one]))


def test_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from morphogen.cli.audit import Audit

    originals = pictures(range(12), 40)
    for folder, images in (("real", originals), ("syn", [originals[4], *pictures(range(50, 53), 32)])):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).resize((32, 32)).save(tmp_path / folder / f"{i:02d}.png")
    result = Audit(syn=tmp_path / "syn", real=tmp_path / "real", features="none").run()
    assert result["flagged"] >= 1
    assert {"id": "00", "nearest": "04"}.items() <= result["pairs"][0].items()
    assert Path(result["figure"]) == tmp_path / "syn-audit.png"
    with Image.open(result["figure"]) as figure:
        assert figure.width > 4 * 300
    assert "00 resembles 04" in capsys.readouterr().out
    with pytest.raises(InputError, match="its folder does not exist"):
        Audit(syn=tmp_path / "syn", real=tmp_path / "real", out=tmp_path / "no" / "x.png").run()
