"""The unix socket of the embedded server, where only its user can reach it.

A path of a socket is limited to 107 bytes, so it does not lie in the project directory.
"""

import contextlib
import errno
import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path

from hullscreen.database.server_files import ServerFiles
from hullscreen.potentials.errors import DatabaseError

# The kernel allows 108 bytes with the closing zero.
LONGEST_SOCKET_PATH = 107
# Sticky, so that nobody replaces what another user made in it.
SHARED_TEMPORARY_DIRECTORY = "/tmp"  # noqa: S108


def socket_path(files: ServerFiles) -> Path:
    """Path of mongod's socket, below a directory that only this user can enter.

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
            make_private_directory(parent)
        except OSError as error:
            complaints.append(f"{error.filename or parent}: {error.strerror or error}")
            continue
        return path
    raise DatabaseError(
        "The embedded database needs a private directory for its socket and found none "
        f"({'; '.join(complaints)}): set TMPDIR to a short directory that you can write to"
    )


def make_private_directory(directory: Path) -> None:
    """Make a directory that only this user can enter, or check that it is one.

    Raises
    ------
    OSError
        It is a link, another user's, or open to others: somebody else may have put it there.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "not a directory of this user", str(directory))
    if stat.S_IMODE(found.st_mode) != 0o700:
        raise OSError(errno.EPERM, "open to other users (expected mode 0700)", str(directory))


def remove_socket(path: Path) -> None:
    """Remove a dead server's socket and its directory; mongod does that unless it was killed."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def server_answers(path: Path) -> bool:
    """Whether something accepts connections on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
