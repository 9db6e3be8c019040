"""Files, locks and processes of the embedded server: who owns what, and what is true after a kill.

```
<project>/database/              mode 0700
    data/                        mongod's dbpath
    clients.lock                 shared flock of each client; a keeper that gets it alone may stop
    keeper.lock                  exclusive flock: held by the one keeper as long as it lives
    state.json                   what the keeper last said about itself, replaced as a whole
    keep-running                 marker of `hullscreen db start`
    mongod.log, mongod.log.1     of this start and of the one before, or since the last rotation
    keeper.log                   what the keeper and mongod wrote to standard error
```
The kernel drops a flock with its last holder, however that ended, so a lock never goes stale. A
process is named by its identifier *and* its start time, because identifiers are used again.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from hullscreen.potentials.errors import DatabaseError

# The keeper renews state.json's time this often, and another host believes in it for so long:
# several missed renewals, and clocks that differ by some seconds.
HEARTBEAT_S = 10.0
HEARTBEAT_EXPIRES_S = 90.0

# A server on a disk with less than this would fail at its first writes.
NEEDED_BYTES = 4_000_000

Phase = Literal["starting", "running", "stopping", "stopped", "failed"]


@dataclass(frozen=True)
class ServerFiles:
    """Paths of one project's embedded server."""

    directory: Path

    @property
    def data(self) -> Path:
        """Directory of mongod's data files."""
        return self.directory / "data"

    @property
    def clients_lock(self) -> Path:
        """Lock that every client shares."""
        return self.directory / "clients.lock"

    @property
    def keeper_lock(self) -> Path:
        """Lock of the one keeper."""
        return self.directory / "keeper.lock"

    @property
    def state(self) -> Path:
        """What the keeper last said."""
        return self.directory / "state.json"

    @property
    def keep_running(self) -> Path:
        """Marker: stay without clients."""
        return self.directory / "keep-running"

    @property
    def mongod_log(self) -> Path:
        """Log of mongod."""
        return self.directory / "mongod.log"

    @property
    def keeper_log(self) -> Path:
        """Standard error of the keeper and of mongod."""
        return self.directory / "keeper.log"


@dataclass(frozen=True)
class ServerState:
    """What a keeper says about itself; enough to tell whether it still lives.

    Attributes
    ----------
    directory, inode
        Of the database it keeps; empty and 0 where an older keeper did not say.
    """

    phase: Phase
    host: str
    namespace: str
    keeper_pid: int
    keeper_start: str
    socket: str
    mongod_pid: int = 0
    version: str = ""
    reason: str = ""
    directory: str = ""
    inode: int = 0


def explain_file_error(error: OSError, directory: Path) -> DatabaseError:
    """Sentence for a directory in which the server cannot write."""
    reasons = {
        errno.ENOSPC: "its disk is full; free some space and run again",
        errno.EDQUOT: "the disk quota is used up; free some space and run again",
        errno.EFBIG: "files may not grow so large; raise the limit (ulimit -f) and run again",
        errno.EROFS: "its file system is read-only; use another directory or give a MongoDB URI",
        errno.EACCES: "permission is denied; use a directory of your own or give a MongoDB URI",
        errno.EPERM: "permission is denied; use a directory of your own or give a MongoDB URI",
        errno.ENOLCK: "its file system has no file locks; use a local disk or give a MongoDB URI",
        errno.ENOSYS: "its file system has no file locks; use a local disk or give a MongoDB URI",
        errno.EEXIST: "a file stands where a directory is expected; move it away",
        errno.ENOTDIR: "a file stands where a directory is expected; move it away",
        errno.EMFILE: "too many files are open in this process; raise the limit (ulimit -n)",
    }
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}; give a MongoDB URI instead")
    return DatabaseError(f"The embedded database cannot write in {directory}: {reason}")


def prepare(project_directory: Path) -> ServerFiles:
    """Database directory of a project, made if it is missing, private and writable.

    Raises
    ------
    DatabaseError
        The project directory does not exist, belongs to another user, or cannot be written to.
    """
    if not project_directory.is_dir():
        raise DatabaseError(
            f"There is no project directory {project_directory}: run `hullscreen init` first."
        )
    directory = project_directory.resolve() / "database"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.stat()
        if found.st_uid != os.geteuid():
            raise DatabaseError(
                f"The embedded database {directory} belongs to user {found.st_uid}, not to you "
                f"({os.geteuid()}): run as that user or give a MongoDB URI"
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            directory.chmod(0o700)
        for name in ("clients.lock", "keeper.lock"):
            os.close(os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise explain_file_error(error, directory) from error
    return ServerFiles(directory)


def check_room(files: ServerFiles) -> None:
    """Write and remove a file, because a full disk or quota also cuts off mongod's own complaint.

    Raises
    ------
    OSError
        The file could not be written; nothing of it stays.
    """
    probe = files.directory / "room.probe"
    try:
        probe.write_bytes(bytes(NEEDED_BYTES))
    finally:
        probe.unlink(missing_ok=True)


def try_lock(path: Path, operation: int) -> int | None:
    """Descriptor holding a flock on an existing file, or None where another process excludes it.

    Opened for writing even when shared: network file systems ask for that.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lock_holders(path: Path) -> list[int]:
    """Processes on this host that took a shared flock on a file, in ascending order.

    A forked process shares its parent's. Empty where the kernel does not tell (some file systems).
    """
    try:
        wanted = path.stat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    identity = f"{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}:{wanted.st_ino}"
    rows = [line.split() for line in lines]
    return sorted(
        int(row[4])
        for row in rows
        if len(row) > 5 and row[1] == "FLOCK" and row[3] == "READ" and row[5] == identity
    )


def process_namespace() -> str:
    """Where a process identifier means the same: this boot of the kernel, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """Start time of a process in clock ticks since boot; empty for none and for a zombie."""
    try:
        # The command name in parentheses may hold anything, also parentheses and blanks.
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2]
    except OSError:
        return ""
    values = after_name.split()
    return "" if values[0] in "ZX" else values[19]


def signal_process(pid: int, number: int, is_the_one: Callable[[], bool]) -> bool:
    """Signal a process if it still is the one that is meant; whether it was signalled.

    The process is held by a descriptor before the check, so that its identifier cannot come to mean
    another one between the check and the signal.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_the_one():
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def keeper_lives(files: ServerFiles, state: ServerState | None) -> bool:
    """Whether the keeper of this state lives, here or (by its heartbeat) elsewhere."""
    if state is None or state.phase in ("stopped", "failed"):
        return False
    here = process_namespace()
    if state.namespace == here:
        return process_start(state.keeper_pid) == state.keeper_start != ""
    if state.host == socket.gethostname() and state.namespace.split()[:1] != here.split()[:1]:
        # This host was started anew since.
        return False
    try:
        return time.time() - files.state.stat().st_mtime < HEARTBEAT_EXPIRES_S
    except OSError:
        return False


def read_state(files: ServerFiles) -> ServerState | None:
    """Last state that a keeper of this directory wrote; None if none can be understood.

    A directory that was copied while its server ran holds the state of the other one's keeper:
    what is done to the copy must not reach that.
    """
    try:
        document = json.loads(files.state.read_text(encoding="utf-8"))
        known = {field.name for field in fields(ServerState)}
        state = ServerState(**{key: value for key, value in document.items() if key in known})
        inode = files.directory.stat().st_ino
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    # A directory that was renamed keeps its inode; not every file system's inodes last.
    own = state.directory in ("", str(files.directory)) or state.inode in (0, inode)
    return state if own else None


def write_state(files: ServerFiles, state: ServerState) -> None:
    """Replace the state in one step, so that a reader sees the old or the new one.

    Raises
    ------
    OSError
        The directory cannot be written to; the old state stays.
    """
    temporary = files.state.with_suffix(".json.new")
    try:
        temporary.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        temporary.replace(files.state)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
