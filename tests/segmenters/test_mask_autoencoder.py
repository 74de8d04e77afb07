"""Whether an autoencoder holds masks, and training it where it does not."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from morphogen.segmenters.latent import mask_autoencoder
from morphogen.segmenters.latent.mask_autoencoder import encoded_std, oracle_dice, prepare
from morphogen.segmenters.task import SegmenterConfig
from segmenters.base import PhantomPairs
from segmenters.latent_nets import inner, outer


def parts(net: Any) -> tuple[Any, Any]:
    return net.net.autoencoder, net.net.vision


class TestMaskAutoencoder:
    @torch.no_grad()
    def test_oracle_is_the_dice_of_each_class_over_images_that_have_it(self, foundation: Path) -> None:
        net = inner(foundation, 3)
        masks = PhantomPairs(3, n_classes=3).stacked()[1]
        masks[0] = masks[0].clamp(max=1)  # one image without class 2
        labels = net.decode(net.encode_mask(masks)).argmax(dim=1)
        for k, found in enumerate(oracle_dice(net, masks), start=1):
            pairs = [(label == k, mask == k) for label, mask in zip(labels, masks, strict=True) if (mask == k).any()]
            scores = [2 * (a & b).sum().item() / (a.sum() + b.sum()).item() for a, b in pairs]
            assert found == pytest.approx(np.mean(scores))

    def test_no_more_pixels_at_a_time_than_the_bound(self, foundation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which changes neither number but for rounding: every mask passes the autoencoder by itself."""
        net, masks = inner(foundation, 3), PhantomPairs(5, n_classes=3).stacked()[1]
        std, dice, side = float(encoded_std(net, masks)), oracle_dice(net, masks), masks[0].numel()
        rows: list[int] = []

        def noted(call: Any, x: torch.Tensor) -> Any:
            rows.append(len(x))
            return call(x)

        for name in ("encode", "decode"):
            monkeypatch.setattr(net.autoencoder, name, functools.partial(noted, getattr(net.autoencoder, name)))
        for pixels, most in ((2 * side, 2), (side - 1, 1)):
            monkeypatch.setattr(mask_autoencoder, "_PIXELS", pixels)
            assert float(encoded_std(net, masks)) == pytest.approx(std, rel=1e-6)
            assert oracle_dice(net, masks) == pytest.approx(dice)
            assert max(rows) == most
            rows.clear()

    @pytest.mark.parametrize("turns", [1, 2])
    def test_prepared_net_has_unit_latents_and_another_decoder_then_another_encoder(
        self, turns: int, foundation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mask_autoencoder, "_STEPS", 6)
        monkeypatch.setattr(mask_autoencoder, "_TURNS", turns)
        net, pairs = outer(foundation, 3), PhantomPairs(6, n_classes=3)
        encoder, tau = ({k: v.clone() for k, v in part.encoder.state_dict().items()} for part in parts(net))
        prepare(net, [pairs], SegmenterConfig(), tmp_path)
        masks = pairs.stacked()[1]
        assert float(net.net.encode_mask(masks).std()) == pytest.approx(1, abs=1e-3)
        logs = [tmp_path / "mask_autoencoder" / f"turn{turn}" / "metrics.jsonl" for turn in range(turns)]
        steps = [1 + json.loads(log.read_text().splitlines()[-1])["step"] for log in logs]
        assert steps == [6, 12][:turns]  # each turn twice the one before
        note = net.notes["oracle_dice"]
        assert note["per_class"] == oracle_dice(net.net, masks)
        assert note["mean"] == pytest.approx(np.mean(note["per_class"])) != note["before"]
        kept = [torch.equal(v, encoder[k]) for k, v in net.net.autoencoder.encoder.state_dict().items()]
        assert all(kept) if turns == 1 else not any(kept)
        assert all(torch.equal(v, tau[k]) for k, v in net.net.vision.encoder.state_dict().items())
        assert not any(p.requires_grad for p in net.net.autoencoder.parameters())
        weights = {k: v.clone() for k, v in net.state_dict().items()}
        again = outer(foundation, 3)
        prepare(again, [pairs], SegmenterConfig(), tmp_path)  # a continued run finds its work done
        assert all(torch.equal(v, weights[k]) for k, v in again.state_dict().items())
