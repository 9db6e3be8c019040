"""One calculation in a folder at a time, though several workers may want the same one."""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hullscreen.dft_adapters.engine import EngineMissingError

LOCK_FILE = "lock"
# Who computes may take hours; but a worker that somebody has stopped must not hold up all others.
PATIENCE_S = 3600.0
LONGEST_WAIT_S = 1.0
# Some file systems have no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Wait until no other process computes in a folder, and keep others waiting meanwhile.

    The lock goes with the process that holds it, however that ends.

    Raises
    ------
    EngineMissingError
        Another process has held it for longer than `PATIENCE_S`.
    """
    with (directory / LOCK_FILE).open("a") as stream:
        _wait_for(stream.fileno(), directory)
        yield


def _wait_for(descriptor: int, directory: Path) -> None:
    deadline, pause = time.monotonic() + PATIENCE_S, 0.01
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise EngineMissingError(
                    "in_use",
                    f"another process has been computing in {directory} for more than "
                    f"{PATIENCE_S / 3600:g} h; wait for it, or end it, and run again",
                ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return
        else:
            return
        time.sleep(pause)
        pause = min(2.0 * pause, LONGEST_WAIT_S)
