"""``morphogen rate``: a page on which people rate the realism of images, blinded, and what their answers say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from morphogen.cli.verb import Verb
from morphogen.errors import InputError

if TYPE_CHECKING:
    from morphogen.rating.draw import Drawing


@dataclass(frozen=True, kw_only=True)
class Rate(Verb):
    """Make a blinded rating page of synthetic and real images, or turn its answers (--import) into opinion scores."""

    syn: tyro.conf.Positional[Path | None] = None
    """Folder with the synthetic images; left out with --import."""
    real: tyro.conf.Positional[Path | None] = None
    """Folder with the real images; they are resized to the size of the synthetic ones. Left out with --import."""
    out: Path
    """Folder of page.html, which goes to the raters, and key.json, which does not."""
    import_: Annotated[tuple[Path, ...], tyro.conf.arg(name="import")] = ()
    """Files that raters have saved: score them by the key in --out instead of making a page."""
    n: int = 50
    """Images of each kind."""
    repeats: int = 0
    """Pictures that are shown a second time, to see whether raters agree with themselves."""
    seed: int = 0
    """Of the draw. Every rater sees the pictures in an order of his own."""

    def run(self) -> dict[str, Any]:
        if self.import_:
            if self.syn is not None:
                raise InputError(f"{self.syn}: a folder and --import are two commands; leave one of them out")
            return self._score()
        if self.syn is None or self.real is None:
            raise InputError(f"{self.out}: give SYN and REAL to make a page, or --import FILE ... to score its answers")
        return self._make(self.syn, self.real)

    def _make(self, syn: Path, real: Path) -> dict[str, Any]:
        from morphogen.files import refuse_file
        from morphogen.rating.draw import draw
        from morphogen.rating.page import write_page

        refuse_file(self.out)
        drawing = draw(syn, real, self.n, self.repeats, self.seed)
        drawn_from = {"syn": str(syn.resolve()), "real": str(real.resolve()), "seed": self.seed}
        page = write_page(drawing, self.out, drawn_from)
        result = {
            "study": drawing.study,
            "page": str(page),
            "key": str(page.with_name("key.json")),
            "n_synthetic": len(drawing.pictures) // 2,
            "n_real": len(drawing.pictures) // 2,
            "repeats": len(drawing.repeats),
            "size": list(drawing.size),
            "notes": list(drawing.notes),
        }
        _print_page(drawing, result, page.stat().st_size)
        return result

    def _score(self) -> dict[str, Any]:
        from morphogen.rating.answers import read_answers
        from morphogen.rating.page import read_key
        from morphogen.rating.results import summarise

        key = read_key(self.out)
        raters, notes = read_answers(self.import_, key)
        result = summarise(raters, key, notes)
        _print_scores(result)
        return result


def _print_page(drawing: Drawing, result: dict[str, Any], size: int) -> None:
    height, width = drawing.size
    shown = len(drawing.pictures) + len(drawing.repeats)
    kinds = f"{result['n_synthetic']} synthetic, {result['n_real']} real, {result['repeats']} of them again"
    print(f"{shown} images: {kinds}")
    print(f"  all {width} x {height} px, as PNG")
    for note in drawing.notes:
        print(f"  note: {note}")
    print(f"send to the raters: {result['page']} ({size / 1e6:.1f} MB, needs no network)")
    print(f"keep from them:     {result['key']}")


def _print_scores(result: dict[str, Any]) -> None:
    n = result["n_pictures"]
    print(f"{result['n_raters']} raters, {n['synthetic']} synthetic and {n['real']} real pictures")
    for name in ("synthetic", "real", "difference"):
        label = name if name == "difference" else f"MOS {name}"
        weighted = _text(result["weighted"][name], 2)
        print(f"  {label:<16}{_text(result['mos'][name], 2)}   weighted by confidence {weighted}")
    print(f"  {'told apart':<16}{_text(result['auc'], 3)}   (area under the curve; 0.5 is a guess)")
    labels = {"alpha": "Krippendorff's alpha", "icc_single": "ICC(2,1)", "icc_mean": "ICC(2,k)"}
    for name, label in labels.items():
        if name in result["agreement"]:
            print(f"  {label:<22}{_text(result['agreement'][name], 3)}")
    for pair in result["agreement"].get("pairs", ()):
        print(f"  weighted kappa of {' and '.join(pair['raters'])}: {_value(pair['kappa'], 3)}")
    for name, rater in result["raters"].items():
        _print_rater(name, rater)
    for note in result["notes"]:
        print(f"note: {note}")
    print(result["protocol"])


def _print_rater(name: str, rater: dict[str, Any]) -> None:
    synthetic, real = (_value(rater["mos"][kind] and rater["mos"][kind]["mean"], 2) for kind in ("synthetic", "real"))
    area = _value(rater["auc"] and rater["auc"]["mean"], 3)
    print(
        f"  {name}: {rater['n']} pictures, synthetic {synthetic}, real {real}, told apart {area}, "
        f"{rater['median_seconds']:.1f} s a picture"
    )
    if rater["repeats"]:
        again = rater["repeats"]
        print(
            f"    on {again['n']} repeats: {100 * again['same']:.0f} % the same score, mean difference "
            f"{again['mean_absolute_difference']:.2f}, weighted kappa {_value(again['kappa'], 3)}"
        )


def _value(value: float | None, digits: int) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _text(found: dict[str, Any] | None, digits: int) -> str:
    if found is None:
        return "undefined"
    interval = "no interval" if found["ci95"] is None else "{:.{d}f} to {:.{d}f}".format(*found["ci95"], d=digits)
    return f"{found['mean']:.{digits}f} ({interval})"
