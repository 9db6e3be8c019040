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
import hashlib
import json
import os
import socket
import stat
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from hullscreen.potentials.errors import DatabaseError

# The kernel allows 108 bytes with the closing zero.
LONGEST_SOCKET_PATH = 107
# Sticky, so that nobody replaces what another user made in it.
SHARED_TEMPORARY_DIRECTORY = "/tmp"  # noqa: S108
# The keeper renews state.json's time this often, and another host believes in it for so long:
# several missed renewals, and clocks that differ by some seconds.
HEARTBEAT_S = 10.0
HEARTBEAT_EXPIRES_S = 90.0

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
    """What a keeper says about itself; enough to tell whether it still lives."""

    phase: Phase
    host: str
    namespace: str
    keeper_pid: int
    keeper_start: str
    socket: str
    mongod_pid: int = 0
    version: str = ""
    reason: str = ""


def explain_file_error(error: OSError, directory: Path) -> DatabaseError:
    """Sentence for a directory in which the server cannot write."""
    reasons = {
        errno.ENOSPC: "its disk is full; free some space and run again",
        errno.EDQUOT: "the disk quota is used up; free some space and run again",
        errno.EROFS: "its file system is read-only; use another directory or give a MongoDB URI",
        errno.EACCES: "permission is denied; use a directory of your own or give a MongoDB URI",
        errno.EPERM: "permission is denied; use a directory of your own or give a MongoDB URI",
        errno.ENOLCK: "its file system has no file locks; use a local disk or give a MongoDB URI",
        errno.ENOSYS: "its file system has no file locks; use a local disk or give a MongoDB URI",
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
    """Last state that a keeper wrote; None if there is none or it cannot be understood."""
    try:
        document = json.loads(files.state.read_text(encoding="utf-8"))
        known = {field.name for field in fields(ServerState)}
        return ServerState(**{key: value for key, value in document.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


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


def socket_path(files: ServerFiles) -> Path:
    """Path of mongod's socket, in a directory that only this user can enter.

    A function of the project's place and the user, so that a URI written to a file stays valid.

    Raises
    ------
    DatabaseError
        No directory is private, writable and short enough.
    """
    user = os.geteuid()
    name = hashlib.sha256(os.fsencode(files.data)).hexdigest()[:16]
    # /tmp comes first: TMPDIR differs between jobs, and XDG_RUNTIME_DIR vanishes at the logout.
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    roots = [SHARED_TEMPORARY_DIRECTORY, tempfile.gettempdir(), runtime]
    complaints = []
    for root in dict.fromkeys(root for root in roots if root):
        parent = Path(root) / f"hullscreen-{user}"
        path = parent / name / "mongod.sock"
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            complaints.append(f"{path} is longer than {LONGEST_SOCKET_PATH} bytes")
            continue
        try:
            make_private_directory(path)
        except OSError as error:
            complaints.append(f"{error.filename or parent}: {error.strerror or error}")
            continue
        return path
    raise DatabaseError(
        "The embedded database needs a private directory for its socket and found none "
        f"({'; '.join(complaints)}): set TMPDIR to a short directory that you can write to"
    )


def make_private_directory(path: Path) -> None:
    """Make the two directories above a socket that only this user can enter, or check them.

    Raises
    ------
    OSError
        One is a link, another user's, or open to others: somebody else may have put it there.
    """
    for directory in (path.parent.parent, path.parent):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "not a directory of this user", str(directory))
        if stat.S_IMODE(found.st_mode) != 0o700:
            raise OSError(errno.EPERM, "open to other users (expected mode 0700)", str(directory))


def server_answers(path: Path) -> bool:
    """Whether something accepts connections on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
