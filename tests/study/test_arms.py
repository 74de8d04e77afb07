"""The table of arms."""

from __future__ import annotations

from morphogen.study.arms import ARMS, DEFAULT_ARMS


def test_the_names_are_those_of_the_design() -> None:
    assert set(ARMS) == {
        "real", "real-geo", "syn", "syn-geo", "duplicated", "more-real", "autoencoded", "features",
        "synthetic-only",
    }  # fmt: skip
    assert DEFAULT_ARMS == ("real", "real-geo", "syn", "syn-geo", "duplicated")
    assert all(arm.name == name for name, arm in ARMS.items())


def test_an_arm_differs_from_its_control_in_data_or_network_alone() -> None:
    for arm in ARMS.values():
        if arm.control is not None:
            control = ARMS[arm.control]
            assert control.control is None
            assert control.augmentation == arm.augmentation
            assert (arm.parts, arm.network) != (control.parts, control.network)


def test_the_four_arms_of_the_square() -> None:
    square = {(ARMS[n].parts, ARMS[n].augmentation) for n in DEFAULT_ARMS[:4]}
    assert square == {
        (parts, augmentation) for parts in (("real",), ("real", "synthetic")) for augmentation in ("none", "geometric")
    }
    assert ARMS["duplicated"].parts == ("real", "real")
