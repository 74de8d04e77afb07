"""The latent segmenter."""

from __future__ import annotations

from typing import ClassVar

from segmenters.base import SegmenterTester


class TestLatent(SegmenterTester):
    name = "latent"
    options: ClassVar = {"foundation": "tiny"}
