"""Who may read what is written? What holds patient data is its owner's alone: files 0600, folders 0700."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def owner_only() -> Iterator[None]:
    """What is created inside is readable by its owner alone, by whatever library; what is there stays as it is.

    A context or, called, a decorator. It sets the umask, which all threads of the process share.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def warn_of_others(folder: Path) -> None:
    """Warn of a folder that everybody on this machine may enter. What a group may do is for its owner to say."""
    if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o007:
        warnings.warn(f"everybody on this machine may enter {folder}: run 'chmod o-rwx {folder}'", stacklevel=3)
