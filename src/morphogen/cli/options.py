"""``--config FILE``: a verb's options from YAML, checked as strictly as those of the command line."""

from __future__ import annotations

import dataclasses
import difflib
import keyword
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from morphogen.errors import InputError


def defaults_from(verb: type, words: Sequence[str]) -> Any:
    """A verb whose fields hold the values of the file after ``--config``.

    Args:
        verb: Dataclass of the verb.
        words: Command line after the verb.

    Returns:
        The instance for the parser's `default`; required fields that the file leaves out are `tyro.MISSING`. Without
        ``--config`` the parser's own mark for "no default".

    Raises:
        InputError: The file cannot be read, a key is unknown or a value does not fit.
    """
    import tyro

    path = _config_path(words)
    if path is None:
        return tyro.MISSING_NONPROP
    values = read_options(path, verb)
    instance: Any = object.__new__(
        verb
    )  # not verb(): __post_init__ must not judge what the command line may still change
    for field in dataclasses.fields(verb):
        value = values.get(field.name, _default(field, tyro.MISSING))
        object.__setattr__(instance, field.name, value)
    return instance


def read_options(path: Path, verb: type) -> dict[str, Any]:
    """The options in a YAML file, each converted to its field's type.

    Args:
        path: YAML mapping of option names (``train-batch-size`` or ``train_batch_size``) to values.
        verb: Dataclass that the options belong to.

    Raises:
        InputError: As in `defaults_from`.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name an existing YAML file after --config") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not YAML ({' '.join(str(error).split())}); correct that line") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no 'option: value' lines; see --help for the options")
    hints = get_type_hints(verb, include_extras=True)
    options = {}
    for key, raw in content.items():
        name = str(key).replace("-", "_")
        name += "_" * keyword.iskeyword(name)  # as the field of such an option is named
        if name not in hints:
            raise InputError(f"{path}: unknown option {key!r}; {_near(name, sorted(hints))}")
        try:
            options[name] = _fit(raw, hints[name])
        except ValueError as error:
            raise InputError(f"{path}: {key}: {error}") from error
    return options


def _config_path(words: Sequence[str]) -> Path | None:
    for position, word in enumerate(words):
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
        if word == "--config" and position + 1 < len(words):
            return Path(words[position + 1])
    return None


def _default(field: dataclasses.Field[Any], missing: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return missing if field.default_factory is dataclasses.MISSING else field.default_factory()


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"


def _fit(raw: Any, hint: Any) -> Any:
    """`raw` as a value of the type `hint`; ValueError says what was expected."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fit(raw, args[0])
    if origin in (Union, types.UnionType):
        return _fit_any(raw, args)
    if origin is Literal:
        if raw not in args:
            raise ValueError(f"{raw!r} is not a choice; {_near(str(raw), [str(choice) for choice in args])}")
        return raw
    if origin in (tuple, list):
        return _fit_items(raw, origin, args)
    if origin is dict:
        if not isinstance(raw, dict):
            raise ValueError(f"{raw!r} is not a mapping")
        return {_fit(key, args[0]): _fit(value, args[1]) for key, value in raw.items()}
    return _fit_scalar(raw, hint)


def _fit_any(raw: Any, hints: Sequence[Any]) -> Any:
    if raw is None and type(None) in hints:
        return None
    faults = []
    for hint in (h for h in hints if h is not type(None)):
        try:
            return _fit(raw, hint)
        except ValueError as error:
            faults.append(str(error))
    raise ValueError("; ".join(faults))


def _fit_items(raw: Any, kind: type, args: Sequence[Any]) -> Any:
    if not isinstance(raw, list):
        raise ValueError(f"{raw!r} is not a list")
    if kind is list or args[1:] == (...,):
        return kind(_fit(item, args[0]) for item in raw)
    if len(raw) != len(args):
        raise ValueError(f"{raw!r} does not have {len(args)} values")
    return tuple(_fit(item, hint) for item, hint in zip(raw, args, strict=True))


def _fit_scalar(raw: Any, kind: Any) -> Any:
    if kind is Any or (isinstance(raw, kind) and (kind is bool) == isinstance(raw, bool)):
        return raw
    if kind is Path and isinstance(raw, str):
        return Path(raw)
    if kind is float and isinstance(raw, (int, str)) and not isinstance(raw, bool):
        try:
            return float(raw)  # YAML 1.1 takes 1e-4 for a word
        except ValueError:
            pass
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    raise ValueError(f"{raw!r} is not {names.get(kind, kind)}")
