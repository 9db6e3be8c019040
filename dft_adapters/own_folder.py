"""A folder for one calculation that no other process works in."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

LOCK_FILE = "lock"
# What file systems answer that have no locks: then nothing can be told.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF}


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """The folder for as long as the block lasts, or one beside it where another process is at work.

    A worker that was thought to be gone, for instance one that was stopped, may still compute
    there; both would write over each other's files. The lock ends with its process.
    """
    for number in count(1):
        mine = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        mine.mkdir(parents=True, exist_ok=True)
        with (mine / LOCK_FILE).open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            yield mine
            return
