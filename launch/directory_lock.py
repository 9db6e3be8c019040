"""One supervisor for a campaign directory: `hullscreen run` or `launch`, and only one of them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hullscreen.potentials.errors import CampaignError

FILE_NAME = "run.lock"


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
    """
    with (directory / FILE_NAME).open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            other, _, pid = stream.read().strip().rpartition(" ")
            raise CampaignError(
                f"`hullscreen {other or 'run'}` is already at work in {directory} (process "
                f"{pid or 'unknown'}); wait for it or stop it"
            ) from error
        stream.truncate(0)
        stream.write(f"{command} {os.getpid()}\n")
        stream.flush()
        yield
