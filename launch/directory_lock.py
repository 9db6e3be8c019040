"""One supervisor for a campaign directory: `hullscreen run` or `launch`, and only one of them.

What needs the campaign at rest asks for the same lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hullscreen.potentials.errors import CampaignError

FILE_NAME = "run.lock"
# What file systems say that know no locks, as some parallel ones of clusters do not.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}


@contextmanager
def only_one(directory: Path, command: str) -> Iterator[None]:
    """Hold the directory's lock: two supervisors would mend each other's workers.

    Parameters
    ----------
    directory
        The campaign's.
    command
        Who holds it: ``run`` or ``launch``.

    Raises
    ------
    CampaignError
        Another process holds it; it is named.

    Notes
    -----
    Where the file system knows no locks, nobody is refused: two supervisors do some things twice,
    and nothing wrong.
    """
    with (directory / FILE_NAME).open("a+") as stream:
        try:
            lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CampaignError(
                f"{_holder(stream, directory, 'already ')}; wait for it or stop it"
            ) from error
        stream.truncate(0)
        stream.write(f"{command} {os.getpid()} {socket.gethostname()}\n")
        stream.flush()
        yield


def refuse_supervised(directory: Path, what: str) -> None:
    """Refuse what needs a campaign at rest, while a supervisor of its directory lives.

    Raises
    ------
    CampaignError
        One does, though perhaps no step is under way; it is named.
    """
    try:
        stream = (directory / FILE_NAME).open(encoding="utf-8")
    except (FileNotFoundError, PermissionError):
        # Nobody has worked here, or only others, whom their claims tell.
        return
    with stream:
        try:
            lock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CampaignError(
                f"{_holder(stream, directory)}, and {what} needs the campaign at rest: `hullscreen "
                f"cancel {directory}` ends the work first"
            ) from error


def _holder(stream: IO[str], directory: Path, already: str = "") -> str:
    """Who has locked an open file, and has written into it who they are."""
    stream.seek(0)
    other, pid, host = [*stream.read().split(), "", "", ""][:3]
    where = f" on {host}" if host not in ("", socket.gethostname()) else ""
    return (
        f"`hullscreen {other or 'run'}` is {already}at work in {directory} (process "
        f"{pid or 'unknown'}{where})"
    )


def lock(stream: IO[str], operation: int) -> None:
    """Lock an open file, if its file system can.

    Raises
    ------
    BlockingIOError
        Another process has locked it, and it was not to be waited for.
    """
    try:
        fcntl.flock(stream, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
