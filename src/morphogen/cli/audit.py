"""``morphogen audit``: copies of training images, leakage of test images, duplicates; and quality gates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError, MorphogenError, WorkError

if TYPE_CHECKING:
    from morphogen.audit.folders import Material
    from morphogen.audit.nearest import ImageSet
    from morphogen.data.records import Dataset
    from morphogen.metrics.pictures import Size
    from morphogen.segmenters.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class Audit(Verb):
    """Look for copies of training images among synthetic ones, for leakage of test images, and for duplicates.

    Every synthetic image is compared with the real training image that it resembles most. Where REAL states splits
    (records.csv), the generator was trained on its training part, and its val and test parts serve as held-out and test
    images.
    """

    syn: tyro.conf.Positional[Path]
    """Folder with the synthetic images."""
    real: tyro.conf.Positional[Path]
    """Folder with the real images that the generator was trained on."""
    held_out: Path | None = None
    """Folder with real images that the generator did not see: how near are these to its training images? By default
    training images are compared with those of other subjects."""
    test: Path | None = None
    """Folder with the test images, which nothing may have been trained on."""
    generator: str | None = None
    """Run folder of the generator, or its foundation (tiny, a folder, a hub id): what it was trained on is compared
    with the test images."""
    out: Path | None = None
    """Page of the result with the closest pairs (HTML), and beside it their picture (PNG); by default SYN-audit.html
    beside the folder of the synthetic images."""
    features: str = "auto"
    """Features beside pixels: inception or another extractor; none; or auto, inception where it is installed."""
    gates: tuple[str, ...] = ()
    """Quality gates to judge by, any of adherence, agreement, copies, blur and saturation, with limits from the real
    images; of pairs that were painted into images also drawn and untouched, and of those whose masks the generator
    made area and ambiguous, of those that have a class class-agreement. Of pairs that were painted into images copies
    compares the lesions alone, since the rest is a real image by design."""
    segmenter: Path | None = None
    """Run folder of the segmenter for the gates adherence and agreement; best one that was not trained on REAL."""
    classifier: Path | None = None
    """Run folder of the classifier for the gate class-agreement, trained on real images alone."""
    mask_values: str | None = None
    """Label of every raw value in the masks, e.g. 0=0,7=1,255=2, for the gates adherence and agreement, and
    copies of painted lesions; found where it is clear."""
    drop: bool = False
    """Note in SYN's manifest.jsonl which pairs the gates drop, and why. They stay where they are; `train` and all else
    that reads the folder for use passes over them. Another --drop replaces the verdicts."""

    def run(self) -> dict[str, Any]:
        """Audit the folder.

        Raises:
            InputError: A folder or file is at fault, or an option lacks another one.
        """
        from morphogen.audit.duplicates import duplicates
        from morphogen.audit.folders import find_leaks, gather
        from morphogen.audit.gating import painted_into_images
        from morphogen.audit.memorisation import memorisation
        from morphogen.metrics.pictures import picture

        self._check_options()
        page = self._page()
        material = gather(self.syn, self.real, self.held_out, self.test)
        size = picture(material.synthetic[0]).shape[:2]
        sets = self._image_sets(material, size)
        result: dict[str, Any] = {
            "synthetic": self.syn.name,
            "real": self.real.name,
            "features": sets["synthetic"].extractor if sets["synthetic"].features is not None else None,
            "note": self._note(),
            "painted_into_images": len(painted_into_images(material)),
            "memorisation": memorisation(sets["synthetic"], sets["train"], sets.get("held_out")),
            "leakage": find_leaks(material, sets["synthetic"], self.generator),
            "duplicates": duplicates(material.synthetic.ids, sets["synthetic"].thumbnails, sets["train"].thumbnails),
            "page": str(page),
            "figure": str(page.with_suffix(".png")),
        }
        result["gates"] = self._judge(material, size, result["memorisation"]["pairs"]) if self.gates else None
        self._show(result, material, size)
        return result

    def failure(self, result: dict[str, Any]) -> MorphogenError | None:
        """Gates that leave nothing: their verdicts were not noted."""
        if self.drop and not result["gates"]["accepted"]:
            reasons = ", ".join(f"{gate} {n}" for gate, n in result["gates"]["reasons"].items())
            return WorkError(f"{self.syn}: the gates would drop all pairs ({reasons}), so none is; leave a gate out")
        return None

    def _check_options(self) -> None:
        from morphogen.sampling.gates import CLASSIFIED, GATES, SEGMENTED

        for gate in self.gates:
            if gate not in GATES:
                raise InputError(f"--gates {gate}: is not known; choose from {', '.join(GATES)}")
        if self.drop and not self.gates:
            raise InputError("--drop: notes the verdicts of gates, and none is named; name some with --gates")
        segmented = [gate for gate in self.gates if gate in SEGMENTED]
        if bool(segmented) != (self.segmenter is not None):
            raise InputError(
                f"--gates {' '.join(segmented) or 'adherence'}: goes with --segmenter RUN, which finds the masks; give "
                "both or neither"
            )
        if bool({*CLASSIFIED} & {*self.gates}) != (self.classifier is not None):
            raise InputError("--gates class-agreement: goes with --classifier RUN; give both or neither")
        self._check_recorded()
        if self.drop and not (self.syn / "manifest.jsonl").is_file() and self.syn.is_dir():
            raise InputError(f"{self.syn}: holds no manifest.jsonl for --drop to note verdicts in; leave --drop out")

    def _check_recorded(self) -> None:
        """Find now, and not after the audit, that a gate's scores were never noted."""
        from morphogen.sampling.gates import recorded_scores
        from morphogen.sampling.manifest import read_rows

        if self.syn.is_dir():
            rows = read_rows(self.syn)
            recorded_scores(rows, rows or ["the folder"], self.gates, self.syn)

    def _page(self) -> Path:
        folder = self.syn.resolve()
        page = (self.out or folder.with_name(f"{folder.name}-audit.html")).with_suffix(".html")
        if not page.absolute().parent.is_dir():
            raise InputError(f"{page}: its folder does not exist; make it first or name another file")
        return page

    def _extractor(self) -> str | None:
        from morphogen.metrics.weights import available

        if self.features == "auto":
            return "inception" if available("inception") else None
        return None if self.features == "none" else self.features

    def _note(self) -> str | None:
        if self.features != "auto" or self._extractor() is not None:
            return None
        from morphogen.metrics.weights import MEMBERS

        return f"Pixels alone: Inception is not installed ({MEMBERS['inception'].remedy})."

    def _image_sets(self, material: Material, size: Size) -> dict[str, ImageSet]:
        from morphogen.audit.folders import subjects_of
        from morphogen.audit.nearest import image_set
        from morphogen.metrics.features import find
        from morphogen.metrics.pictures import pictures
        from morphogen.progress import track

        extractor = self._extractor()
        if extractor is not None:
            find(extractor)
        named = {"synthetic": material.synthetic, "train": material.train, "held_out": material.held_out}
        return {
            name: image_set(some.ids, track(pictures(list(some), size), name, len(some)), subjects_of(some), extractor)
            for name, some in named.items()
            if len(some)
        }

    def _judge(self, material: Material, size: Size, pairs: list[dict[str, Any]]) -> dict[str, Any]:
        from morphogen.audit.gating import Judges, judge_folder
        from morphogen.sampling.gates import write_verdicts

        predict = classifier = None
        if self.segmenter is not None:
            from morphogen.segmenters.predictor import load_segmenter

            predict = load_segmenter(self.segmenter)
        if self.classifier is not None:
            from morphogen.classifiers.predictor import load_classifier

            classifier = load_classifier(self.classifier)
        judges = Judges(predict, None if classifier is None else classifier.by_name, self._extractor())
        verdicts = judge_folder(self.gates, material, size, pairs, judges, self.mask_values)
        if predict is not None:
            verdicts = replace(verdicts, segmenter=_described(predict, material.train))
        if classifier is not None:
            known = {"name": classifier.config["classifier"], "hash": classifier.hash}
            verdicts = replace(verdicts, classifier=known)
        if self.drop and verdicts.kept:
            write_verdicts(self.syn, verdicts)
        dropped = {i: gates for i, gates in verdicts.dropped.items() if gates}
        return verdicts.summary() | {"noted": self.drop and bool(verdicts.kept), "dropped": dropped}

    def _show(self, result: dict[str, Any], material: Material, size: Size) -> None:
        from morphogen.audit.figure import draw_pairs
        from morphogen.audit.page import write_page
        from morphogen.metrics.pictures import picture

        ours, theirs = ({record.id: record for record in some} for some in (material.synthetic, material.train))
        shown = (lambda name: picture(ours[name])), (lambda name: picture(theirs[name], size))
        write_page(result, *shown, Path(result["page"]))
        draw_pairs(result["memorisation"]["pairs"], *shown, Path(result["figure"]))
        _print(result)


def _described(segmenter: Predictor, train: Dataset) -> dict[str, Any]:
    """The gate's segmenter, by which a judge of adherence can tell itself apart, and what spoils its limit."""
    from morphogen.segmenters.adherence import knows

    known = {True: "trained on the images that set its limit: too strict", None: "does not say what it was trained on"}
    config = segmenter.config
    return {
        "name": config["segmenter"],
        "architecture": config["architecture"],
        "hash": segmenter.hash,
        "note": known.get(knows(segmenter, train)),
    }


def _print(result: dict[str, Any]) -> None:
    from morphogen.audit.page import share

    found, leaks, twins, gates = (result[name] for name in ("memorisation", "leakage", "duplicates", "gates"))
    control, (low, high) = found["control"], found["ci95"]
    if result["note"]:
        print(result["note"])
    print(
        f"{found['flagged']} of {found['n']} synthetic images are too near to one of {found['n_real']} training images"
    )
    print(
        f"  {share(found['rate'])} (95 % interval {share(low)} to {share(high)}); control {share(control['rate'])} of"
    )
    print(f"  {control['n']} images: {control['of']}")
    if result["painted_into_images"]:
        print(
            f"  {result['painted_into_images']} of them were painted into images, which they resemble by design; "
            "--gates copies compares their lesions alone"
        )
    if control["left_out"]:
        print(f"  {control['left_out']} held-out images are left out: their subjects are among the training images'")
    for pair in [pair for pair in found["pairs"] if pair["flagged"]][:10]:
        distances = ", ".join(f"{name} {value:.4f}" for name, value in pair["distances"].items())
        print(f"  {pair['id']} resembles {pair['nearest']} ({distances})")
    unknown = f" (unknown: {', '.join(leaks['unknown'])})" if leaks["unknown"] else ""
    print(f"leakage of test images: {leaks['verdict']}{unknown}")
    print(f"duplicates: {twins['redundant']} of {twins['n']} are near-duplicates of an earlier one")
    if gates:
        reasons = ", ".join(f"{gate} {n}" for gate, n in gates["reasons"].items())
        print(f"gates: {gates['accepted']} accepted, {gates['rejected']} rejected ({reasons})")
        if gates["segmenter"] and gates["segmenter"]["note"]:
            print(f"warning: the gate's segmenter: {gates['segmenter']['note']}")
    print(f"closest pairs: {result['page']}")
