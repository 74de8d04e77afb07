"""The command ``morphogen``: finds the verb, reads its options, maps errors to exit codes.

Only the module of the chosen verb is imported, so that ``--help`` answers at once.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec

from morphogen.cli.verb import Verb
from morphogen.errors import InputError, MorphogenError, StoppedError
from morphogen.launched import place, tells_of_failure

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("morphogen.cli.demo:Demo", "the whole job on embedded data, a few minutes on a CPU"),
    "study": ("morphogen.cli.study:Study", "train with and without synthetic pairs, and say whether they help"),
    "compare": ("morphogen.cli.compare:Compare", "compare ways to learn from few labelled and many unlabelled volumes"),
    "data check": ("morphogen.cli.data:Check", "fingerprint of a dataset and every fault in it"),
    "data split": ("morphogen.cli.data:Split", "divide a dataset by subject, or by groups of near-duplicates"),
    "data convert": ("morphogen.cli.data:Convert", "write a dataset in another layout"),
    "pretrain": ("morphogen.cli.pretrain:Pretrain", "make a foundation (a small latent diffusion model) from images"),
    "train": ("morphogen.cli.train:Train", "train one generator, segmenter or classifier"),
    "sample": ("morphogen.cli.sample:Sample", "draw synthetic pairs from a trained generator"),
    "predict": ("morphogen.cli.predict:Predict", "segment or classify images with a trained network"),
    "eval masks": ("morphogen.cli.eval:Masks", "compare predicted masks with reference masks"),
    "eval classes": ("morphogen.cli.eval_classes:Classes", "score a trained classifier on images of known class"),
    "eval images": ("morphogen.cli.eval_images:Images", "compare synthetic images with real ones"),
    "audit": ("morphogen.cli.audit:Audit", "look for copies of real images among synthetic ones"),
    "rate": ("morphogen.cli.rate:Rate", "a blinded page on which people rate the realism of images, and its scores"),
    "report": ("morphogen.cli.report:Report", "join the finished cells of a study into its report"),
    "import-weights": ("morphogen.cli.import_weights:ImportWeights", "foreign checkpoints to ours"),
    "models": ("morphogen.cli.models:Models", "every method with one line, its kind and its source"),
}
"""Verb -> (module:Class, one-line summary). One verb a module; the words before the last are a group."""
SHARED = ("pretrain", "train", "sample", "eval images")
"""Verbs that several processes, launched together, do as one; of any other each would do the whole."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after ``morphogen``; the process's own by default.

    Returns:
        0 done, 1 the work failed, 2 the input is wrong, 130 stopped by the user.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name, rest = _split_verb(words)
    if name not in VERBS:
        return _overview(words)
    debug = "--debug" in rest
    try:
        return _run(name, rest)
    except SystemExit as stop:  # the option parser's --help (0) and its own errors (2), already printed
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        return _fail("stopped; run the same command to continue", 130, debug, everywhere=True)
    except MorphogenError as error:
        return _fail(str(error), error.exit_code, debug, everywhere=isinstance(error, StoppedError))
    except BrokenPipeError:  # the reader of our output has seen enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at exit
        return 1
    except OSError as error:
        return _fail(_os_line(error), 1, debug)
    except Exception as error:
        line = f"{type(error).__name__}: {_one_line(error)}; run again with --debug to see where"
        return _fail(line, 1, debug, known=False)


def _split_verb(words: list[str]) -> tuple[str, list[str]]:
    groups = {name.split()[0] for name in VERBS if " " in name}
    length = 2 if words and words[0] in groups else 1
    return " ".join(words[:length]), words[length:]


def _run(name: str, rest: list[str]) -> int:
    # tyro costs a third of a second: the overview does without it
    import tyro

    from morphogen.cli.options import defaults_from
    from morphogen.files import write_json

    # diffusers imports bitsandbytes wherever it is installed, and that remarks on what it lacks on a CPU
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    module, _, cls = VERBS[name][0].partition(":")
    verb_class: type[Verb] = getattr(importlib.import_module(module), cls)
    verb = tyro.cli(
        verb_class,
        prog=f"morphogen {name}",
        args=rest,
        default=defaults_from(verb_class, rest),
        config=(tyro.conf.PositionalMetavarFromFieldName,),
        console_outputs=not place().local_rank,
    )
    if verb.json is not None and not verb.json.absolute().parent.is_dir():
        raise InputError(f"{verb.json}: its folder does not exist; make it first or name another file")
    if verb.json is not None and verb.json.is_dir():
        raise InputError(f"{verb.json}: is a folder; name a file after --json")
    seed = getattr(verb, "seed", None)
    if seed is not None and seed < 0:  # numpy's generators take none
        raise InputError(f"--seed {seed}: is negative; give 0 or more")
    if place().world > 1:
        _join(name)
    try:
        result = verb.run()
    except InputError as error:
        raise error if verb.config is None else InputError(f"{error} (options read from {verb.config})") from error
    if verb.json is not None and not place().rank:
        write_json(verb.json, result)
    failure = verb.failure(result)
    if failure is not None:
        raise failure
    return 0


def _join(name: str) -> None:
    """Meet the other processes and take this one's GPU, before the verb loads anything onto the first of all.

    Raises:
        InputError: The verb is not for several processes, or there is nothing for them to run on.
    """
    if name not in SHARED:
        raise InputError(f"morphogen {name}: runs as one process; start it without a launcher")
    from morphogen.training.processes import processes

    processes()


def _overview(words: list[str]) -> int:
    """Print the verbs whose modules are there: the help, or the answer to an unknown verb (exit 2)."""
    if words == ["--version"]:
        from importlib.metadata import version

        print(f"morphogen {version('morphogen')}")
        return 0
    known = {name: summary for name, (path, summary) in VERBS.items() if find_spec(path.partition(":")[0])}
    group = words[0] + " " if words and any(name.startswith(words[0] + " ") for name in known) else ""
    asked = not words or bool({"--help", "-h"} & set(words))
    lines = [f"usage: morphogen {group}VERB ...    (morphogen {group}VERB --help shows its options)", ""]
    lines += [f"  {name:<16}{summary}" for name, summary in known.items() if name.startswith(group)]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    if asked:
        return 0
    unknown = " ".join(words[: len(group.split()) + 1])
    near = difflib.get_close_matches(unknown, known, n=3)
    return _fail(f"{unknown}: no such verb" + (f"; did you mean {' or '.join(near)}?" if near else ""), 2, debug=False)


def _os_line(error: OSError) -> str:
    path = error.filename or "the output folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full; free some space there or name another --out, then run the same command"
    return f"{path}: {error.strerror or _one_line(error)}; check the path and its permissions"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _fail(line: str, code: int, debug: bool, known: bool = True, everywhere: bool = False) -> int:
    if not tells_of_failure(known, everywhere):
        return code
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"morphogen: {line}", file=sys.stderr)
    return code
