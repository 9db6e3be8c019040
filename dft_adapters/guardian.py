"""Stands between a worker and a DFT code, so that the code never outlives the worker.

Run as a script: ``python guardian.py PARENT_PID COMMAND ARGUMENT...`` in a new session. When the
parent dies, however it dies, Linux sends this process SIGTERM (PR_SET_PDEATHSIG) and it kills its
whole process group: an ``mpirun`` and all its ranks. The command itself dies with the guardian.
Standard library only: it is started for every calculation.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1
CANNOT_START = 127


def die_with_parent(signal_number: int, parent: int) -> None:
    """Ask Linux for ``signal_number`` when the parent ends; elsewhere nothing can be asked."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the request
            os.kill(os.getpid(), signal_number)


def kill_group(_signal_number: int, _frame: FrameType | None) -> None:
    """End everything in this process group, this process included."""
    os.killpg(0, signal.SIGKILL)


def main(parent: int, command: list[str]) -> int:
    """Run ``command``, and return its exit status (128 + n for signal n, as shells do)."""
    signal.signal(signal.SIGTERM, kill_group)
    die_with_parent(signal.SIGTERM, parent)
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        die_with_parent(signal.SIGKILL, guardian)
        try:
            os.execvp(command[0], command)  # noqa: S606 - no shell is the point
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(CANNOT_START)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
