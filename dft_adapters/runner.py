"""Starting a DFT executable: own process group, no shell, no orphans, output in files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hullscreen.dft_adapters.engine import EngineMissingError

GUARDIAN = Path(__file__).with_name("guardian.py")
# Serial jobs side by side: a threaded BLAS in each would fight for the cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# What is said when a program, or the launcher of its ranks, could not be started: regular
# expressions for tables of failures.
NOT_STARTED = r"error while loading shared libraries|command not found|[Ee]xec format error"
NOT_LAUNCHED = (
    r"srun: error: (Unable|Task launch|Invalid|.*[Cc]onfiguration)|not enough slots available|"
    r"mpirun was unable|attempt to run as root|PMI2?_Init failed|orte_init failed"
)
FIRST_WAIT_S = 0.002
LONGEST_WAIT_S = 0.1


@dataclass(frozen=True)
class Completed:
    """How a command ended.

    Attributes
    ----------
    returncode
        Exit status; 128 + n if signal n ended it.
    timed_out
        It was killed because it passed the time limit.
    cpu_seconds
        User and system time of all its processes.
    """

    returncode: int
    timed_out: bool
    cpu_seconds: float


def find_executable(name: str) -> str:
    """Full path of an executable given by name or path.

    Raises
    ------
    EngineMissingError
        There is none, with how to get one.
    """
    found = shutil.which(name)
    if found is None:
        raise EngineMissingError(
            "missing_executable",
            f"the executable {name!r} was not found on PATH; install it or give its full path "
            "as `command` under [dft.quantum_espresso] or [dft.vasp] in hullscreen.toml",
        )
    return found


def run_command(
    command: Sequence[str],
    directory: Path,
    *,
    stdout: str,
    stderr: str,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Completed:
    """Run ``command`` in ``directory`` and wait for it.

    Whatever ends this process or this call (a timeout, Ctrl-C, ``kill -9``) ends the command and
    every process it started. So does the end of the calling thread: Linux counts it as the parent.

    Parameters
    ----------
    command
        Executable and arguments; no shell sees them.
    directory
        Working directory.
    stdout, stderr
        File names in ``directory`` that receive the output.
    timeout_s
        Wall time after which it is killed; None waits for ever.
    environment
        Variables set on top of this process's and of `ONE_THREAD`.

    Raises
    ------
    EngineMissingError
        The executable does not exist.
    """
    find_executable(command[0])
    guarded = [sys.executable, "-I", "-S", str(GUARDIAN), str(os.getpid()), *command]
    variables = {**os.environ, **ONE_THREAD, **(environment or {})}
    with (directory / stdout).open("wb") as out, (directory / stderr).open("wb") as err:
        process = subprocess.Popen(
            guarded,
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        finished = False
        try:
            completed = _wait(process.pid, timeout_s)
            finished = True
        finally:
            # Also after a normal end: ranks or daemons it may have left behind.
            _kill_group(process.pid)
            if not finished:
                process.wait()
        process.returncode = completed.returncode
    return completed


def _wait(pid: int, timeout_s: float | None) -> Completed:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    timed_out = False
    pause = FIRST_WAIT_S
    while True:
        # wait4 rather than Popen.wait: it tells the processor time of exactly this tree.
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return Completed(
                code if code >= 0 else 128 - code, timed_out, usage.ru_utime + usage.ru_stime
            )
        if deadline is not None and time.monotonic() > deadline and not timed_out:
            timed_out = True
            _kill_group(pid)
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_WAIT_S)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
