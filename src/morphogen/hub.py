"""Models on the Hugging Face hub, by an id with a pinned revision: ``owner/name@revision``."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path

from morphogen.errors import InputError
from morphogen.progress import say

_ID = re.compile(r"[\w.-]+/[\w.-]+@[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form ``owner/name@revision``."""
    return bool(_ID.fullmatch(name))


def hub_folder(
    name: str, files: Sequence[str], remedy: str, leave: Sequence[str] = (), called: str | None = None
) -> Path:
    """The local folder of a hub model: from the cache where it is there, else downloaded, which is said.

    Args:
        name: ``owner/name@revision``.
        files: Patterns of the files that are wanted; no others are fetched.
        remedy: What to do where there is no network; the end of the error's line.
        leave: Patterns of files that are not wanted.
        called: What the user wrote, where that is another name.

    Raises:
        InputError: There is no such model or revision, or the hub cannot be reached.
    """
    import logging

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)  # its remarks on every retry
    repository, _, revision = name.partition("@")
    said = called or name
    if not _in_cache(repository, revision):
        say(f"{said}: is not in the hub's cache; asking the hub for it")
    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(files), ignore_patterns=list(leave))
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(f"{said}: the hub has no such model, or no such revision of it; correct the id") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{said}: no such folder here, and the hub cannot be reached ({type(error).__name__}); {remedy}"
        ) from error


def _in_cache(repository: str, revision: str) -> bool:
    """Whether some of it was downloaded before; the rest would follow."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    return (folder / "snapshots" / revision).is_dir() or (folder / "refs" / revision).is_file()
