"""Training a classifier through the loop."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from classifiers.labelled import LabelledPhantoms
from morphogen.classifiers.config import ClassifierConfig
from morphogen.classifiers.predictor import load_classifier
from morphogen.classifiers.task import ClassifierTask, train_classifier
from morphogen.data.augment import affine_maps, warp_pairs
from morphogen.data.pairs import Pairs
from morphogen.data.phantoms import phantom_dataset
from morphogen.errors import InputError, WorkError
from morphogen.metrics.classification import macro_f1
from morphogen.training.task import Draw, Progress

QUICK = ClassifierConfig(
    architecture={"width": 8}, max_train_steps=4, train_batch_size=4, checkpointing_steps=2, validation_steps=2
)
UNEVEN = ["mucosa"] * 8 + ["skin"] * 2


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def task(labels: int | list[str] = 4, **changes: object) -> ClassifierTask:
    source = LabelledPhantoms(labels)
    return ClassifierTask("small", [source], source, replace(QUICK, **changes))  # type: ignore[arg-type]


def drawn(made: ClassifierTask, n: int = 4000) -> Counter[str]:
    """The classes of n draws, as the loop makes them."""
    items = [made.balance.item(Draw(i % len(made), 1000 + i)) for i in range(n)]
    return Counter(made.classes[made.labels[i]] for i in items)


class TestBatch:
    def test_joins_sources_in_order_and_scales_to_minus_one_and_one(self) -> None:
        first, second = LabelledPhantoms(3), LabelledPhantoms(["skin", "mucosa"], first_seed=10)
        made = ClassifierTask("small", [first, second], first, replace(QUICK, augmentation="none"))
        batch = made.batch([Draw(4, 7), Draw(1, 8)])
        np.testing.assert_allclose(batch["image"][0].numpy(), second.image(1) / 127.5 - 1, atol=1e-6)
        assert made.classes == ("mucosa", "skin")
        assert batch["label"].tolist() == [0, 1]
        assert batch["seed"].tolist() == [7, 8]

    def test_augmentation_is_that_of_pairs(self) -> None:
        made = task()
        plain = task(augmentation="none").batch([Draw(0, 1), Draw(1, 2)])
        expected, _ = warp_pairs(plain["image"], torch.zeros(2, 32, 32, dtype=torch.long), affine_maps([1, 2]))
        found = made.batch([Draw(0, 1), Draw(1, 2)])
        assert torch.equal(found["image"], expected)
        assert torch.equal(found["image"][1:], made.batch([Draw(1, 2)])["image"])


class TestBalance:
    def test_zero_takes_every_record_as_it_comes(self) -> None:
        made = task(UNEVEN)
        assert [made.balance.item(Draw(i, 99 + i)) for i in range(10)] == list(range(10))

    @pytest.mark.parametrize(("exponent", "share"), [(1.0, 0.5), (0.5, 1 / 3)])
    def test_shares_of_classes(self, exponent: float, share: float) -> None:
        """Of 8 and 2 records: 2^(1 - e) / (8^(1 - e) + 2^(1 - e)); within four standard errors."""
        found = drawn(task(UNEVEN, class_balance=exponent))["skin"] / 4000
        assert found == pytest.approx(share, abs=4 * 0.5 / 4000**0.5)

    def test_every_record_of_a_class_is_drawn(self) -> None:
        made = task(UNEVEN, class_balance=1.0)
        counts = Counter(made.balance.item(Draw(0, seed)) for seed in range(2000))
        assert counts.keys() == set(range(10))
        assert all(abs(counts[i] - 500) < 80 for i in (8, 9))

    def test_draw_is_a_function_of_its_seed_alone(self) -> None:
        made = task(UNEVEN, class_balance=1.0)
        other = task(UNEVEN, class_balance=1.0).balance.item(Draw(3, 5))
        assert made.balance.item(Draw(0, 5)) == made.balance.item(Draw(7, 5)) == other


class TestLoss:
    def test_weights_undo_the_frequency_of_classes(self) -> None:
        assert task(UNEVEN).weights.tolist() == [1, 1]
        assert task(UNEVEN, weighting=1.0).weights.tolist() == pytest.approx([10 / 16, 10 / 4])
        assert task(UNEVEN, weighting=0.5).weights.tolist() == pytest.approx([0.625**0.5, 2.5**0.5])

    def test_a_stated_class_without_records_is_never_learnt(self, tmp_path: Path) -> None:
        source, val = LabelledPhantoms(UNEVEN), LabelledPhantoms(["mucosa", "skin"]).relabelled("wart", 1)
        config = replace(QUICK, classes=("mucosa", "skin", "wart"), class_balance=0.5, weighting=1.0)
        with pytest.raises(InputError, match="holds no training record of class 'wart'"):
            ClassifierTask("small", [source], val, config)
        made = ClassifierTask("small", [source], val, config, absent=True)
        assert made.weights[:2].tolist() == pytest.approx([10 / 16, 10 / 4])  # as without that class
        assert made.weights.isfinite().all()
        assert drawn(made, 400).keys() == {"mucosa", "skin"}
        run = train_classifier("small", source, val, config, tmp_path / "run", absent=True)
        assert load_classifier(run).classes == config.classes

    def test_is_the_weighted_mean_of_minus_log_p_and_adds_up_over_parts(self) -> None:
        made = task(UNEVEN, weighting=1.0)
        made.net.eval()
        batch = made.batch([Draw(i, i) for i in range(6, 10)])
        whole = made.loss(batch, Progress(0, 1))["cross_entropy"]
        p = made.net(batch["image"]).softmax(dim=1)[torch.arange(4), batch["label"]]
        expected = -(torch.tensor([0.625, 0.625, 2.5, 2.5]) * p.log()).mean()
        torch.testing.assert_close(whole, expected)
        parts = [
            made.loss({"image": batch["image"][r], "label": batch["label"][r]}, Progress(0, 1))["cross_entropy"]
            for r in (slice(0, 1), slice(1, 4))
        ]
        torch.testing.assert_close(whole, (parts[0] + 3 * parts[1]) / 4)

    def test_encoder_and_biases_have_groups_of_their_own(self) -> None:
        made = task(encoder_lr_scale=0.1, weight_decay=0.02)
        (phase,) = made.phases()
        names = {id(p): name for name, p in made.net.named_parameters()}
        found = {names[id(p)]: (g.lr_scale, g.weight_decay) for g in phase.groups for p in g.parameters}
        assert found.keys() == set(names.values())
        assert found["encoder.0.weight"] == (0.1, 0.02)
        assert found["encoder.1.weight"] == (0.1, 0.0)
        assert found["head.weight"] == (1.0, 0.02)
        assert found["head.bias"] == (1.0, 0.0)


class TestValidation:
    @pytest.mark.parametrize("select_by", ["macro_f1", "balanced_accuracy"])
    def test_score_is_the_one_asked_for_and_ties_go_to_the_surer(self, select_by: str) -> None:
        made = task(UNEVEN, select_by=select_by)
        made.modules.eval()
        first = made.validate(0)
        assert first["score"] == pytest.approx(first[select_by], abs=1e-4)
        made._probabilities = lambda: np.tile([0.6, 0.4], (10, 1))  # type: ignore[method-assign]
        sure = made.validate(0)
        assert sure["macro_f1"] == pytest.approx(macro_f1(np.array([[8, 0], [2, 0]])))
        assert sure["balanced_accuracy"] == pytest.approx(0.5)
        assert sure["cross_entropy"] == pytest.approx(-(0.8 * np.log(0.6) + 0.2 * np.log(0.4)))
        made._probabilities = lambda: np.tile([0.51, 0.49], (10, 1))  # type: ignore[method-assign]
        assert made.validate(0)["score"] < sure["score"]

    def test_best_look_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = {}

        def validate(self: ClassifierTask, step: int) -> dict[str, float]:
            seen[step] = {k: v.clone() for k, v in self.net.state_dict().items()}
            return {"score": 1.0 if step == 2 else 0.0}

        monkeypatch.setattr(ClassifierTask, "validate", validate)
        source = LabelledPhantoms(4)
        run = train_classifier("small", source, source, replace(QUICK, keep_last=True), tmp_path / "run")
        assert same(weights(run), seen[2])
        assert same(load_file(run / "last" / "model.safetensors"), seen[4])

    def test_without_validation_the_last_weights_are_kept(self, tmp_path: Path) -> None:
        run = train_classifier("small", LabelledPhantoms(4), LabelledPhantoms(0), QUICK, tmp_path / "run")
        assert not (run / "final" / "predictions.csv").exists()
        assert load_classifier(run).classes == ("mucosa", "skin")


class TestRun:
    def test_run_folder_says_what_was_done(self, tmp_path: Path) -> None:
        train, val = LabelledPhantoms(4), LabelledPhantoms(3, first_seed=50)
        run = train_classifier("small", [train, train], val, replace(QUICK, ema_decay=0.9), tmp_path / "run")
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["classifier"]["architecture"] == {"width": 8}
        assert (config["kind"], config["classes"]) == ("classifier", ["mucosa", "skin"])
        assert (config["data"]["train"]["n"], config["data"]["val"]["n"]) == (8, 3)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert sum("cross_entropy" in row for row in rows) == 4
        assert sum("val/macro_f1" in row for row in rows) == 2
        with (run / "final" / "predictions.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert [row["id"] for row in table] == list(val.dataset.ids)
        assert [row["class"] for row in table] == ["mucosa", "skin", "mucosa"]
        predictor = load_classifier(run)
        found = predictor([image.transpose(1, 2, 0) for image in val.images], batch_size=2)
        written = np.array([[float(row["p(mucosa)"]), float(row["p(skin)"])] for row in table])
        np.testing.assert_allclose(found, written, atol=2e-6)
        np.testing.assert_allclose(found.sum(axis=1), 1)
        assert [row["predicted"] for row in table] == [predictor.classes[k] for k in found.argmax(axis=1)]
        assert len(predictor.hash) == 64
        assert predictor([]).shape == (0, 2)

    @pytest.mark.parametrize(
        "changes", [{"class_balance": 1.0, "ema_decay": 0.9}, {"weighting": 1.0, "optimizer": "sgd"}]
    )
    def test_stopped_and_continued_ends_with_the_same_bits(
        self, changes: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, config = LabelledPhantoms(UNEVEN), replace(QUICK, **changes)
        whole = weights(train_classifier("small", source, source, config, tmp_path / "whole"))
        loss, calls = ClassifierTask.loss, []

        def dies_at_the_fourth(self: ClassifierTask, batch: dict, progress: Progress) -> object:
            calls.append(progress)
            if len(calls) == 4:
                raise WorkError("power cut")
            return loss(self, batch, progress)

        monkeypatch.setattr(ClassifierTask, "loss", dies_at_the_fourth)
        with pytest.raises(WorkError):
            train_classifier("small", source, source, config, tmp_path / "cut")
        again = train_classifier("small", source, source, config, tmp_path / "cut")
        assert len(calls) == 6  # it went on after step 2
        assert same(weights(again), whole)
        predictions = [(run / "final" / "predictions.csv").read_bytes() for run in (tmp_path / "whole", again)]
        assert predictions[0] == predictions[1]

    def test_seed_decides_everything(self, tmp_path: Path) -> None:
        source, config = LabelledPhantoms(4), replace(QUICK, max_train_steps=1, validation_steps=0)
        torch.manual_seed(1)
        first = weights(train_classifier("small", source, source, config, tmp_path / "a"))
        torch.manual_seed(2)
        again = weights(train_classifier("small", source, source, config, tmp_path / "b"))
        other = weights(train_classifier("small", source, source, replace(config, seed=1), tmp_path / "c"))
        assert same(first, again)
        assert not same(first, other)

    def test_other_labels_are_another_run(self, tmp_path: Path) -> None:
        config = replace(QUICK, max_train_steps=1)
        train_classifier("small", LabelledPhantoms(6), LabelledPhantoms(2), config, tmp_path / "run")
        changed = LabelledPhantoms(6).relabelled("skin", 0)
        with pytest.raises(InputError, match="other settings"):
            train_classifier("small", changed, LabelledPhantoms(2), config, tmp_path / "run")

    def test_lite0_trains_and_is_loaded_without_published_weights(self, tmp_path: Path) -> None:
        config = replace(QUICK, architecture={"weights": "none"}, max_train_steps=2, validation_steps=0)
        source = LabelledPhantoms(4, resolution=64)
        run = train_classifier("lite0", source, source, config, tmp_path / "run")
        config_file = run / "final" / "config.json"
        config_file.write_text(config_file.read_text().replace('"none"', '"imagenet"'))
        assert load_classifier(run)([np.zeros((50, 70, 3), np.uint8)]).shape == (1, 2)


def test_learns_two_classes_of_phantoms_that_it_has_not_seen(tmp_path: Path) -> None:
    """The kinds as files, through `Pairs`: 24 of each to learn from, 16 of each to be told apart."""
    first = phantom_dataset(tmp_path / "mucosa", "mucosa", 40, 32)
    second = phantom_dataset(tmp_path / "skin", "skin", 40, 32)
    records = [replace(r, label=kind) for kind, data in (("m", first), ("s", second)) for r in data]
    train = Pairs(replace(first, records=tuple(r for r in records if int(r.id[-2:]) < 24)), 32)
    test = Pairs(replace(first, records=tuple(r for r in records if int(r.id[-2:]) >= 24)), 32)
    config = replace(QUICK, max_train_steps=40, train_batch_size=8, validation_steps=20, checkpointing_steps=100)
    run = train_classifier("small", train, test, config, tmp_path / "run")
    found = load_classifier(run)(list(test.images().transpose(0, 2, 3, 1))).argmax(axis=1)
    assert np.mean(found == [r.label == "s" for r in test.dataset]) > 0.85


class TestWrong:
    def test_records_without_class(self) -> None:
        whole = LabelledPhantoms(4)
        with pytest.raises(InputError, match="1 of 4 records have no class"):
            ClassifierTask("small", [LabelledPhantoms(4).relabelled(None, 2)], whole, QUICK)
        with pytest.raises(InputError, match="1 of 4 records have no class"):
            ClassifierTask("small", [whole], LabelledPhantoms(4).relabelled(None, 2), QUICK)

    def test_a_validation_class_that_is_not_trained(self) -> None:
        other = LabelledPhantoms(2, first_seed=9).relabelled("wart", 1)
        with pytest.raises(InputError, match="phantoms9: record '00010' is of class 'wart', which is none of mucosa"):
            ClassifierTask("small", [LabelledPhantoms(4)], other, QUICK)

    def test_an_empty_class(self, tmp_path: Path) -> None:
        source = LabelledPhantoms(4)
        config = replace(QUICK, classes=("mucosa", "skin", "wart"))
        with pytest.raises(InputError, match="holds no training record of class 'wart'"):
            train_classifier("small", source, source, config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_resolutions(self) -> None:
        with pytest.raises(InputError, match="is read at 48 px"):
            ClassifierTask("small", [LabelledPhantoms(2), LabelledPhantoms(2, 48)], LabelledPhantoms(2), QUICK)
        odd = LabelledPhantoms(2, 48)
        with pytest.raises(InputError, match="lite0 takes multiples of 32"):
            ClassifierTask("lite0", [odd], odd, replace(QUICK, architecture={}))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"class_balance": 1.5}, "--class-balance 1.5: must lie in 0 to 1"),
            ({"weighting": float("nan")}, "--weighting nan"),
            ({"select_by": "auc"}, "--select-by auc: choose macro_f1 or balanced_accuracy"),
            ({"ema_decay": 1.0}, "--ema-decay 1.0"),
        ],
    )
    def test_impossible_values(self, change: dict, said: str) -> None:
        with pytest.raises(InputError, match=said):
            replace(QUICK, **change)

    def test_a_folder_without_classifier(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"holds no finished classifier \(config\.json is missing\)"):
            load_classifier(tmp_path)
