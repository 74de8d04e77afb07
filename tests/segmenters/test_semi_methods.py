"""Methods that learn from unlabelled images: their losses, what each gradient reaches, their teachers."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.errors import InputError
from morphogen.registry import load
from morphogen.segmenters.any_size import AnySize
from morphogen.segmenters.diffcl.components import largest_component
from morphogen.segmenters.diffcl.config import SemiConfig
from morphogen.segmenters.diffcl.last_features import LastFeatures
from morphogen.segmenters.diffcl.methods import METHODS
from morphogen.segmenters.diffcl.methods.base import MeanTeacher, Method, Parts, confident, pseudo_loss
from morphogen.segmenters.diffcl.methods.bcp import boxes_left_out, paste
from morphogen.segmenters.diffcl.methods.cps import _set_apart
from morphogen.segmenters.diffcl.methods.diff_cl import OUTSIDE, DiffCL, on_grid
from morphogen.segmenters.diffcl.methods.ua_mt import UAMT, consistency
from morphogen.segmenters.diffcl.ramp import sigmoid_ramp
from morphogen.segmenters.diffcl.vnet import VNet, VNetConfig
from morphogen.segmenters.losses import cross_entropy, soft_dice_loss
from morphogen.training.task import Batch, Progress

AFTER = Progress(80, 100)
"""Unlabelled data has its whole say."""
BEFORE = Progress(2, 100)


def method(name: str, dims: int = 2, side: int = 16, **options: Any) -> Method:
    """A small one; its networks see `side` pixels and three classes."""
    torch.manual_seed(0)
    stated = {"lr": 1e-3, "filters": 2, "voxels": 8, "bank": 16, "ramp": 0.1, "patience": 0.0}
    config = SemiConfig(**{"method": name, **stated, **options})
    net = VNetConfig(dims=dims, filters=2, n_classes=3)
    denoiser = VNetConfig(dims=dims, filters=2, n_classes=3, denoiser=True)
    parts = Parts(config, 3, lambda: VNet(net), lambda: VNet(denoiser), torch.zeros(1, 1, *[side] * dims))
    return load(METHODS[name])(parts)


def batch(dims: int = 2, rows: int = 2, side: int = 16) -> Batch:
    rng = torch.Generator().manual_seed(1)
    shape = [side] * dims
    return {
        "image_l": torch.randn(rows, 1, *shape, generator=rng),
        "label": torch.randint(0, 3, (rows, *shape), generator=rng),
        "image_u": (unlabelled := torch.randn(rows, 1, *shape, generator=rng)),
        "guessed_u": unlabelled,
        "seed": torch.arange(rows),
    }


def total(losses: Any) -> Tensor:
    return torch.stack([v for k, v in losses.items() if not k.startswith("log/")]).sum()


def touched(net: nn.Module) -> bool:
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_ramp_is_the_published_exponential() -> None:
    for done in (0.0, 0.1, 0.25, 0.4, 0.7):
        expected = math.exp(-5 * (1 - min(done, 0.4) / 0.4) ** 2)
        assert sigmoid_ramp(done, 0.4) == pytest.approx(expected)
    assert sigmoid_ramp(0.0, 0.0) == 1


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_learns_in_both_dimensions_before_and_after_unlabelled_data_has_a_say(name: str) -> None:
    for dims in (2, 3):
        made, data = method(name, dims), batch(dims)
        for progress in (BEFORE, AFTER):
            for phase in made.phases():
                made.modules.zero_grad()
                losses = phase.loss(data, progress)
                assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
                total(losses).backward()
                assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in phase.parameters)


@pytest.mark.parametrize("name", ["diff-cl", "cps", "ua-mt"])
def test_unlabelled_data_has_no_say_before_its_time(name: str) -> None:
    made, data = method(name), batch()
    names = {key for phase in made.phases() for key in phase.loss(data, BEFORE)}
    assert not {key for key in names if "pseudo" in key or key in ("contrast", "consistency")}
    assert made.weight(BEFORE) == 0
    assert made.weight(AFTER) == made.config.weight


def test_the_convolutional_network_may_listen_later_than_the_diffusion_network() -> None:
    made, data = method("diff-cl", start=0.1, patience=0.5), batch()
    for fraction, cs_listens, ds_listens in ((0.05, False, False), (0.3, False, True), (0.7, True, True)):
        cs, ds = (phase.loss(data, Progress(round(100 * fraction), 100)) for phase in made.phases())
        assert ("pseudo" in cs, "pseudo" in ds) == (cs_listens, ds_listens)


def test_the_two_losses_of_diff_cl_reach_one_network_each() -> None:
    made, data = method("diff-cl"), batch()
    assert isinstance(made, DiffCL)
    cs, ds = made.phases()
    total(cs.loss(data, AFTER)).backward()
    assert touched(made.cs)
    assert not touched(made.ds)
    made.modules.zero_grad()
    total(ds.loss(data, AFTER)).backward()
    assert touched(made.ds)
    assert not touched(made.cs)


def test_each_network_of_diff_cl_learns_the_hard_labels_of_the_other() -> None:
    made = method("diff-cl", eta=0.0, mu=0.7, pseudo_steps=3, pseudo_dice=False)
    assert isinstance(made, DiffCL)
    made.modules.eval()  # no dropout, so that a second look says the same
    data = batch()
    losses = made.loss(data, AFTER)
    with torch.no_grad():
        said = made.cs(data["image_u"]).argmax(dim=1)
        taught = made.sample(data["image_u"], data["seed"], 3, "pseudo").argmax(dim=1)
        expected = 0.7 * F.cross_entropy(made.cs(data["image_u"]), taught)
    assert torch.equal(data["pseudo_c"], said)
    assert losses["pseudo"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["log/agreement"].item() == pytest.approx((said == taught).float().mean().item())
    assert set(losses) == {"cross_entropy", "dice", "pseudo", "log/agreement"}


@pytest.mark.parametrize("name", ["diff-cl", "cps", "ua-mt", "bcp"])
def test_labels_are_guessed_of_the_one_view_and_learned_on_the_other(name: str) -> None:
    """What is guessed depends on the view for it alone; of the two phases of Diff-CL both learn on the other."""
    made, data = method(name, eta=0.0) if name == "diff-cl" else method(name), batch()
    with torch.no_grad():  # an untrained head says one class everywhere
        for net in (made.cs, made.modules["second"] if name == "cps" else made.cs):
            net.head.bias -= net(data["image_u"]).mean(dim=(0, 2, 3))
            net.head.weight *= 100
    made.modules.eval()
    other = {**data, "guessed_u": data["image_u"].flip(-1)}
    found = [
        {key: loss.item() for phase in made.phases() for key, loss in phase.loss(some, AFTER).items()}
        for some in (dict(data), other)
    ]
    changed = {key for key in found[0] if abs(found[1][key] - found[0][key]) > 1e-7}
    assert changed
    assert not {"cross_entropy", "dice", "cross_entropy_2", "dice_2"} & changed
    if name == "diff-cl":
        with torch.no_grad():
            assert torch.equal(other["pseudo_c"], made.cs(other["guessed_u"]).argmax(dim=1))


def test_the_supervised_part_is_half_cross_entropy_and_half_dice() -> None:
    made, data = method("supervised"), batch()
    made.modules.eval()
    logits = made.cs(data["image_l"])
    expected = (cross_entropy(logits, data["label"]) + soft_dice_loss(logits, data["label"])) / 2
    assert total(made.loss(data, AFTER)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_pseudo_labels_of_cps_are_crossed_and_detached() -> None:
    made, data = method("cps", mu=1.0, pseudo_dice=False), batch()
    made.modules.eval()
    losses = made.loss(data, AFTER)
    first, second = made.cs(data["image_u"]), made.modules["second"](data["image_u"])
    assert losses["pseudo"].item() == pytest.approx(F.cross_entropy(first, second.argmax(dim=1)).item(), rel=1e-5)
    assert losses["pseudo_2"].item() == pytest.approx(F.cross_entropy(second, first.argmax(dim=1)).item(), rel=1e-5)
    losses["pseudo"].backward()
    assert touched(made.cs)
    assert not touched(made.modules["second"])


def test_the_two_networks_of_cps_start_apart() -> None:
    made = method("cps")
    pairs = zip(made.cs.parameters(), made.modules["second"].parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.ndim > 1)


def test_pretrained_weights_of_the_second_network_of_cps_stay() -> None:
    first, second = (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)),
    )
    second[0].load_state_dict(first[0].state_dict())
    before = [conv.weight.clone() for conv in second]
    _set_apart(first, second)
    assert torch.equal(second[0].weight, before[0])
    assert not torch.equal(second[1].weight, before[1])


def test_labels_that_are_not_sure_do_not_count() -> None:
    probabilities = torch.tensor([[[0.9, 0.5], [0.1, 0.2]], [[0.1, 0.5], [0.9, 0.8]]]).movedim(0, 0)[None]
    assert confident(probabilities, 0.85).tolist() == [[[0, -1], [1, -1]]]
    assert confident(probabilities, 0.0).min() >= 0
    logits = torch.randn(1, 2, 4, requires_grad=True)
    pseudo_loss(logits, torch.tensor([[0, -1, 1, -1]]), with_dice=True).backward()
    assert logits.grad is not None
    assert logits.grad[..., [1, 3]].abs().sum() == 0
    assert logits.grad[..., [0, 2]].abs().sum() > 0


def test_masked_losses_are_those_of_the_voxels_that_are_left() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 3, 4, 5), torch.randint(0, 3, (1, 4, 5))
    where = torch.zeros(1, 4, 5, dtype=torch.bool)
    where[:, :, :2] = True
    for loss in (cross_entropy, soft_dice_loss):
        cut = loss(logits[..., :2], label[..., :2])
        assert loss(logits, label, where).item() == pytest.approx(cut.item(), rel=1e-6)
        everywhere = loss(logits, label, torch.ones_like(where))
        assert everywhere.item() == pytest.approx(loss(logits, label).item(), rel=1e-6)


def test_a_mean_teacher_is_the_student_first_and_then_its_moving_average() -> None:
    student = nn.Linear(3, 2)
    teacher = MeanTeacher(nn.Linear(3, 2), 0.9)
    teacher.follow(student, 0)
    expected = student.weight.detach().clone()
    assert torch.equal(teacher.net.weight, expected)
    for step in range(1, 15):
        with torch.no_grad():
            student.weight += 1
        teacher.follow(student, step)
        teacher.follow(student, step)  # of another part of the same step
        decay = min(1 - 1 / (step + 1), 0.9)
        expected = decay * expected + (1 - decay) * student.weight.detach()
        assert torch.allclose(teacher.net.weight, expected, atol=1e-5)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_consistency_is_the_squared_distance_of_sure_voxels() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4), torch.randn(2, 3, 4).softmax(dim=1)
    sure = torch.tensor([[True, False, True, True], [False] * 4])
    squared = (logits.softmax(dim=1) - target) ** 2
    expected = squared[0][:, sure[0]].sum() / (3 * 3) / 2  # the second row has nothing sure
    assert consistency(logits, target, sure).item() == pytest.approx(expected.item(), rel=1e-6)


def test_boxes_are_two_thirds_of_every_side_and_follow_the_seed() -> None:
    seeds = torch.tensor([3, 4])
    outside = boxes_left_out(seeds, (18, 12, 9))
    for mask in outside:
        inside = (~mask).nonzero()
        assert (inside.max(dim=0).values - inside.min(dim=0).values + 1).tolist() == [12, 8, 6]
        assert len(inside) == 12 * 8 * 6
    assert torch.equal(boxes_left_out(seeds[1:], (18, 12, 9))[0], outside[1])
    around, within = torch.ones(2, 1, 18, 12, 9), torch.zeros(2, 1, 18, 12, 9)
    assert torch.equal(paste(around, within, outside)[:, 0] == 1, outside)


def test_bcp_learns_both_directions_with_the_pseudo_labels_at_half_weight() -> None:
    made, data = method("bcp"), batch()
    made.modules.eval()
    teacher = copy.deepcopy(made.cs)  # which the mean teacher is after its first step
    losses = made.loss(data, AFTER)
    outside = boxes_left_out(data["seed"], (16, 16))
    pseudo = teacher(data["image_u"]).argmax(dim=1)
    pseudo = torch.from_numpy(np.stack([largest_component(p) for p in pseudo.numpy()]))
    image, label = data["image_l"], data["label"]

    def part(logits: Tensor, target: Tensor, where: Tensor, weight: float) -> Tensor:
        return weight * (cross_entropy(logits, target, where) + soft_dice_loss(logits, target, where)) / 2

    inwards = made.cs(torch.where(outside[:, None], image, data["image_u"]))
    outwards = made.cs(torch.where(outside[:, None], data["image_u"], image.roll(1, dims=0)))
    expected = part(inwards, label, outside, 1) + part(inwards, pseudo, ~outside, 0.5)
    assert losses["inwards"].item() == pytest.approx(expected.item(), rel=1e-5)
    expected = part(outwards, pseudo, outside, 0.5) + part(outwards, label.roll(1, dims=0), ~outside, 1)
    assert losses["outwards"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_memory_takes_voxels_that_the_network_got_right_alone() -> None:
    made = method("diff-cl")
    assert isinstance(made, DiffCL)
    features = torch.randn(1, made.seen.channels, 4, 4)
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1] = 1  # says class 1 everywhere: nothing is right
    made._remember(features, logits, label, torch.tensor([0]))
    assert not made.bank.known.any()
    made._remember(features, -logits, label, torch.tensor([0]))
    assert made.bank.known.tolist() == [True, False, False]
    assert made.bank.filled[0] == made.config.bank // 8


def test_last_features_are_what_the_head_reads_whatever_the_network() -> None:
    net = VNet(VNetConfig(dims=2, filters=3)).eval()
    image = torch.randn(2, 1, 16, 32)
    logits, features = LastFeatures(net, image[:1])(image)
    assert torch.equal(features, net.features(image))
    assert torch.equal(logits, net(image))
    coarse = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2))
    seen = LastFeatures(coarse, image[:1])
    logits, features = seen(image)
    assert (seen.channels, features.shape, logits.shape) == (4, (2, 4, 8, 16), (2, 2, 16, 32))
    labels = torch.arange(16)[None].repeat(16, 1)[None]
    assert on_grid(labels, torch.zeros(1, 1, 8, 8)).shape == (1, 8, 8)


def test_labels_lie_on_the_grid_of_a_network_that_pads() -> None:
    """48 pixels are padded to 64 at their ends; features have half the resolution."""
    labels = torch.arange(48)[None, None].repeat(1, 48, 1)
    found = on_grid(labels, torch.zeros(1, 1, 32, 32), multiple=32)
    assert (found[0, 24:] == OUTSIDE).all()
    assert (found[0, :, 24:] == OUTSIDE).all()
    assert (found[0, 0, :24] - 2 * torch.arange(24)).abs().max() <= 1


@pytest.mark.parametrize("name", ["diff-cl"])
def test_contrast_of_a_network_that_pads_leaves_the_padding_out(name: str) -> None:
    made, data = method(name, side=48), batch(side=48)
    assert isinstance(made, DiffCL)
    made.cs = AnySize(made.cs, 32)
    made.seen, made.multiple = LastFeatures(made.cs, data["image_l"][:1]), 32
    seen = []
    made.projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    losses = made.loss(data, AFTER)
    assert losses["contrast"].isfinite()
    assert all(len(features) <= 2 * 48 * 48 for features in seen)


def test_the_ramp_of_certainty_of_ua_mt_is_over_the_whole_training() -> None:
    made, data = method("ua-mt"), batch()
    assert isinstance(made, UAMT)
    shares = []
    for step in (50, 99):
        entropy = torch.full((2, 16, 16), (0.75 + 0.25 * sigmoid_ramp(step / 100, 1.0)) * math.log(3))
        entropy[:, :8] -= 1e-4
        made._teach = lambda image, seeds, e=entropy: (torch.full((2, 3, 16, 16), 1 / 3), e)  # type: ignore[method-assign]
        shares.append(made.loss(data, Progress(step, 100))["log/sure"].item())
    assert shares == [0.5, 0.5]


def test_the_largest_part_of_every_class_is_kept() -> None:
    labels = np.zeros((6, 6, 6), dtype=np.int64)
    labels[0:2, 0:2, 0:2] = 1
    labels[2, 2, 2] = 1  # touches by a corner
    labels[5, 5, 0:3] = 1
    labels[4:6, 0, 0] = 2
    kept = largest_component(labels)
    assert (kept == 1).sum() == 9
    assert kept[5, 5, 0] == 0
    assert (kept == 2).sum() == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "diffcl"}, "method"),
        ({"start": 1.5}, "start"),
        ({"tau": 0.0}, "tau"),
        ({"pseudo_steps": 0}, "pseudo-steps"),
        ({"method": "cps", "validate_by": "ds"}, "no diffusion network"),
        ({"operator": "sobel"}, "sobel"),
        ({"mu": -1.0}, "mu"),
        ({"start": 0.6, "patience": 0.4}, "no step for unlabelled data"),
        ({"method": "bcp", "train_batch_size": 1}, "2 rows at least"),
        ({"method": "bcp", "train_batch_size": 2, "gradient_accumulation_steps": 2}, "2 rows at least"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SemiConfig(**options)
