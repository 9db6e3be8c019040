"""Exports on their way: what is being written is locked, and what killed ones have left goes."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from hullscreen.potentials.data_files import UNFINISHED, complete_or_absent

# Of the names that tempfile makes up.
RANDOM = r"[a-z0-9_]{8}"


@contextmanager
def unfinished_file(output: Path) -> Iterator[Path]:
    """As `complete_or_absent`, but what killed exports to ``output`` left is removed."""
    place = output.resolve()
    with _unfinished(place, Path.unlink, lambda: complete_or_absent(output)) as path:
        yield path


@contextmanager
def unfinished_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` to be filled and renamed; what is left of it goes at the end."""
    place = output.absolute()
    with _unfinished(place, shutil.rmtree, lambda: _folder_beside(place)) as path:
        yield path


@contextmanager
def _folder_beside(place: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix=UNFINISHED, suffix=f".{place.name}", dir=place.parent, ignore_cleanup_errors=True
    ) as path:
        yield Path(path)


@contextmanager
def _unfinished(
    place: Path, remove: Callable[[Path], None], begin: Callable[[], AbstractContextManager[Path]]
) -> Iterator[Path]:
    with ExitStack() as held, ExitStack() as made:
        # Nobody else looks between the beginning of a file and its lock.
        with _locked(place.parent) as alone:
            if alone:
                _remove_left(place, remove)
            path = made.enter_context(begin())
            held.enter_context(_locked(path))
        yield path


def _remove_left(place: Path, remove: Callable[[Path], None]) -> None:
    names = re.compile(rf"{re.escape(UNFINISHED)}{RANDOM}\.{re.escape(place.name)}")
    for path in place.parent.iterdir():
        if names.fullmatch(path.name):
            # Others' files stay, and what cannot be looked at.
            with _locked(path, wait=False) as abandoned, suppress(OSError):
                if abandoned:
                    remove(path)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a file or folder while this is open; whether that was possible."""
    with ExitStack() as closing:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            closing.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            possible = True
        except OSError:
            # Somebody else has it, or the file system knows no locks.
            possible = False
        yield possible
