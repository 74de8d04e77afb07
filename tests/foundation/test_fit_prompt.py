"""The grammar that fits a set of images, chosen by the foundation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.data.readers import read_dataset
from morphogen.foundation.fit_prompt import pick_grammar
from morphogen.foundation.model import Foundation
from small_foundations import small_foundation


@pytest.mark.parametrize(("kind", "name"), [("mucosa", "polyp"), ("skin", "skin")])
def test_tiny_knows_its_kinds_of_images(kind: str, name: str, tmp_path: Path) -> None:
    pairs = Pairs(phantom_dataset(tmp_path, kind, 6, 64, seed=5), 64)
    assert pick_grammar(Foundation.load("tiny"), pairs).name == name


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("data", "name"), [("polyps/cvc_clinicdb", "polyp"), ("polyps/kvasir_seg", "polyp"), ("skin/isic2017", "skin")]
)
def test_even_neighbouring_images_tell_the_kind(data: str, name: str, real_data: Path) -> None:
    """Frames 0 to 23, 150 to 173, ...: each sample of one or two videos, where the data are videos."""
    tiny, images = Foundation.load("tiny"), read_dataset(real_data / data).annotated
    for first in range(0, 600, 150):
        part = Pairs(replace(images, records=images.records[first : first + 24]), 64)
        assert pick_grammar(tiny, part).name == name, first


def test_a_foundation_with_open_vocabulary_takes_the_generic_one(tmp_path: Path) -> None:
    pairs = Pairs(phantom_dataset(tmp_path / "data", "mucosa", 2, 32), 32)
    assert pick_grammar(small_foundation("sd", tmp_path), pairs).name == "generic"
