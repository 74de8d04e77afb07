"""The table of arms."""

from __future__ import annotations

import pytest

from morphogen.errors import InputError
from morphogen.study.arms import ARMS, DEFAULT_ARMS, OWN, Variant, arm, find, lead, place


def test_the_names_are_those_of_the_design() -> None:
    assert set(ARMS) == {
        "real", "real-geo", "syn", "syn-geo", "duplicated", "more-real", "autoencoded", "features", "oversampled",
        "synthetic-only", "semi", "semi-syn",
    }  # fmt: skip
    assert DEFAULT_ARMS == ("real", "real-geo", "syn", "syn-geo", "duplicated")
    assert all(one.name == name for name, one in ARMS.items())


def test_an_arm_differs_from_its_control_in_data_or_network_alone() -> None:
    for one in ARMS.values():
        if one.control is not None:
            control = ARMS[one.control]
            assert control.control is None
            assert control.augmentation == one.augmentation
            assert (one.parts, one.network, one.semi) != (control.parts, control.network, control.semi)


def test_the_four_arms_of_the_square() -> None:
    square = {(ARMS[n].parts, ARMS[n].augmentation) for n in DEFAULT_ARMS[:4]}
    assert square == {
        (parts, augmentation) for parts in (("real",), ("real", "synthetic")) for augmentation in ("none", "geometric")
    }
    assert ARMS["duplicated"].parts == ("real", "real")


def test_a_name_without_options_is_the_arm_of_the_table() -> None:
    assert all(arm(name) is found and find(name) is found for name, found in ARMS.items())
    assert all((found.base, found.n, found.sampling) == (name, None, ()) for name, found in ARMS.items())


def test_options_stand_in_the_name() -> None:
    found = arm("syn-geo+text=none+n=100+sampling-steps=5")
    assert (found.base, found.n) == ("syn-geo", 100)
    assert found.sampling == (("sampling_steps", "5"), ("text", "none"))
    assert (found.parts, found.control, found.augmentation) == (("real", "synthetic"), "real-geo", "geometric")
    assert found.name == "syn-geo+text=none+n=100+sampling-steps=5"
    assert "first 100 accepted pairs; sampling_steps 5; text none" in found.summary
    assert arm("syn+n=7").control == "real"
    assert found.gated


def test_an_arm_may_pass_over_the_gates() -> None:
    found = arm("syn-geo+gates=none+n=9")
    assert (found.gated, found.n, found.sampling) == (False, 9, ())
    assert "the first 9 pairs; whatever the gates say" in found.summary
    names = ["syn-geo+n=9", "syn-geo+gates=none+n=9"]
    assert place(names[0]) < place(names[1])


def test_a_method_stands_in_the_name_of_arms_that_learn_from_unannotated_images() -> None:
    assert [arm(name).semi for name in ("semi", "semi-syn", "semi+method=cps", "real-geo")] == [
        "diff-cl", "diff-cl", "cps", None,
    ]  # fmt: skip
    found = arm("semi-syn+n=5+method=ua-mt+text=none+gates=none")
    assert (found.semi, found.n, found.gated, found.sampling) == ("ua-mt", 5, False, (("text", "none"),))
    assert (found.parts, found.control, found.augmentation) == (("real", "synthetic"), "real-geo", "geometric")
    assert arm("semi+method=bcp").summary.endswith("; method bcp")
    assert arm("semi+method=diff-cl").summary == arm("semi").summary
    assert {name for name, one in ARMS.items() if one.segments} == {"features", "semi", "semi-syn"}


def test_an_arm_may_have_pairs_of_other_generators() -> None:
    found = arm("syn-geo+generator=controlnet+n=5+guidance=4")
    assert (found.generators, found.n, found.sampling) == (("controlnet",), 5, (("guidance", "4"),))
    assert found.summary.endswith("; pairs of controlnet; the first 5 accepted pairs; guidance 4")
    assert arm("synthetic-only+generator=siamese,copy-paste+gates=none").generators == ("siamese", "copy-paste")
    assert arm("semi-syn+generator=dual+method=cps").generators == ("dual",)
    assert arm("syn-geo").generators == ()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("reel", "--arms reel: is not known; did you mean real"),
        ("sin+n=5", "--arms sin: is not known; did you mean syn"),
        ("real-geo+n=5", "--arms real-geo+n=5: real-geo has no synthetic pairs, so no options; write real-geo"),
        ("more-real+text=none", "more-real has no synthetic pairs"),
        ("syn-geo+100", "'100' is not option=value; write for example syn-geo+n=100"),
        ("syn-geo+", "'' is not option=value"),
        ("syn-geo+n=", "'n=' is not option=value"),
        ("syn-geo+n=5+n=6", "gives n twice"),
        ("syn-geo+n=0", "n takes a whole number from 1 on, not '0'"),
        ("syn-geo+n=-3", "n takes a whole number"),
        ("syn-geo+n=1e3", "n takes a whole number"),
        ("semi+n=5", "--arms semi+n=5: semi has no synthetic pairs, so no option n; write semi or semi+method=cps"),
        ("semi+cps", "'cps' is not option=value"),
        (
            "semi+method=supervised",
            "method supervised does not learn from unannotated images; take diff-cl, cps, ua-mt",
        ),
        ("semi-syn+method=mixmatch", "--arms semi-syn+method=mixmatch: method mixmatch does not learn"),
        ("real-geo+method=cps", "real-geo has no synthetic pairs, so no options; write real-geo"),
        ("features+method=cps", "features has no synthetic pairs, so no options; write features"),
        ("syn-geo+generator=controlnett", "generator controlnett is not known; did you mean controlnet?"),
        ("syn+generator=dual,dual", "--arms syn+generator=dual,dual: names a generator twice; name each once"),
        ("syn+generator=dual,", "generator  is not known"),
        ("syn+generator=siamese,dual+guidance=3", "guidance is for the sampling of one generator, and it names 2"),
        ("real-geo+generator=dual", "real-geo has no synthetic pairs, so no options"),
        ("semi+generator=dual", "semi has no synthetic pairs, so no option generator"),
        ("syn-geo+gates=blur", "gates takes none, not 'blur': none trains on what they dropped too"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        arm(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert find(name) is None


def test_variants_follow_their_arm() -> None:
    names = ["syn-geo", "syn-geo+n=50", "syn-geo+n=100", "syn-geo+n=50+text=none", "duplicated", "from elsewhere"]
    assert sorted(set(names), key=place) == names
    names = ["syn-geo", "syn-geo+text=none", "syn-geo+generator=dual", "syn-geo+generator=dual+text=none"]
    assert sorted(set(names), key=place) == names
    names = ["syn-geo", "semi", "semi+method=cps", "semi+method=bcp", "semi-syn", "semi-syn+n=9", "semi-syn+method=cps"]
    assert sorted(set(names), key=place) == names


def test_the_verdict_speaks_of_the_first_of_the_main_arms() -> None:
    assert lead(["real", "syn+n=3", "syn-geo+n=100", "syn-geo"]) == "syn-geo+n=100"
    assert lead(["real"]) == lead([]) == "syn-geo"


def test_a_way_of_sampling_names_its_folder() -> None:
    assert OWN.of("fold0") == "fold0"
    assert Variant((("text", "none"),), "dual").of("fold0") == "fold0+generator=dual+text=none"
    assert Variant((("guidance", 2.5), ("text", "none"))).of("fold0-seed2") == "fold0-seed2+guidance=2.5+text=none"
