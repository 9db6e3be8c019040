"""The embedded MongoDB server: started privately for whoever needs it, stopped when nobody does.

A client holds a shared lock as long as it lives; a keeper process (`hullscreen.database.keeper`)
owns mongod and goes when nobody holds that lock. A lock that the kernel frees says who is there,
never a file that a killed process leaves behind. mongod listens on one unix socket that only its
user can reach.
"""

import fcntl
import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from hullscreen.database.keeper_start import POLL_S, bring_up, refuse_other_host
from hullscreen.database.mongod import end_other_mongod
from hullscreen.database.private_socket import remove_socket, server_answers, socket_path
from hullscreen.database.server_files import (
    ServerFiles,
    explain_file_error,
    keeper_lives,
    lock_holders,
    prepare,
    read_state,
    signal_process,
    try_lock,
)
from hullscreen.potentials.errors import DatabaseError

GUARD_S = 1.0
# What mongod asks for at least, and what a campaign of 400,000 structures makes use of.
LEAST_CACHE_GB, MOST_CACHE_GB = 0.25, 2.0
DEFAULT_GRACE_S = 5.0


def usual_cache_gb(memory_gb: float) -> float:
    """Size of the server's cache on a machine with so much memory: an eighth, within limits."""
    return min(max(memory_gb / 8, LEAST_CACHE_GB), MOST_CACHE_GB)


MEMORY_GB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
DEFAULT_CACHE_GB = usual_cache_gb(MEMORY_GB)


@dataclass(frozen=True)
class ServerStatus:
    """What is known about a project's embedded server without starting it."""

    running: bool
    kept: bool
    uri: str
    version: str
    keeper_pid: int
    mongod_pid: int
    clients: int
    data_bytes: int
    reason: str


def acquire(
    project_directory: Path,
    *,
    cache_gb: float = DEFAULT_CACHE_GB,
    timeout_s: float = 60.0,
    grace_s: float = DEFAULT_GRACE_S,
) -> "ServerHandle":
    """Have the project's server run until the handle is released or this process ends.

    Parameters
    ----------
    project_directory
        Existing directory; the data go to its ``database/``.
    cache_gb
        WiredTiger's cache in GB, at least 0.25; only the command that starts the server decides.
    timeout_s
        Longest wait in seconds for a server that starts, recovers or is being stopped.
    grace_s
        Seconds that a server started by this call stays after its last client.

    Raises
    ------
    DatabaseError
        mongod is missing, the directory is full, read-only or another user's, another host uses
        it, or the time is over.

    Examples
    --------
    >>> with acquire(Path("cu-pd")) as server:
    ...     client = pymongo.MongoClient(server.uri)
    """
    files = prepare(project_directory)
    deadline = time.monotonic() + timeout_s
    lock = _share_clients_lock(files, deadline)
    try:
        handle = ServerHandle(files, lock, cache_gb=cache_gb, grace_s=grace_s)
        handle.ensure_running(timeout_s=deadline - time.monotonic())
    except BaseException:
        os.close(lock)
        raise
    handle.guard()
    return handle


class ServerHandle:
    """One client's claim on the server; a context manager.

    A forked process shares its parent's claim and keeps it until both are gone; any other process
    acquires its own. While a handle is open, a thread brings a killed keeper back.
    """

    def __init__(self, files: ServerFiles, lock: int, *, cache_gb: float, grace_s: float) -> None:
        self._files = files
        self._lock: int | None = lock
        self._cache_gb = cache_gb
        self._grace_s = grace_s
        self._released = threading.Event()
        self._guardian: threading.Thread | None = None
        # Kept when the server is brought back: clients that are connected know no other.
        self._socket: Path | None = None

    @property
    def uri(self) -> str:
        """Address of the server, which stays the same when it is brought back."""
        return "" if self._socket is None else _uri(self._socket)

    def ensure_running(self, *, timeout_s: float = 60.0) -> None:
        """Return when the server accepts connections, starting whatever is missing.

        Raises
        ------
        DatabaseError
            It cannot be started, with the reason, or the time is over.
        """
        if self._lock is None:
            raise DatabaseError(f"The embedded database in {self._files.directory} was released")
        deadline = time.monotonic() + timeout_s
        state = bring_up(
            self._files, deadline, self._socket, cache_gb=self._cache_gb, grace_s=self._grace_s
        )
        self._socket = Path(state.socket)

    def guard(self) -> None:
        """Start the thread that brings a killed keeper back, for clients that only retry."""
        self._guardian = threading.Thread(
            target=self._watch_keeper, name="hullscreen-database-guard", daemon=True
        )
        self._guardian.start()

    def _watch_keeper(self) -> None:
        pause_s = GUARD_S
        while not self._released.wait(pause_s):
            pause_s = GUARD_S
            if not keeper_lives(self._files, read_state(self._files)):
                try:
                    self.ensure_running()
                except DatabaseError:
                    # Whoever uses the server gets the reason from ensure_running or their own call.
                    pause_s = 10.0 * GUARD_S

    def release(self) -> None:
        """Give the claim back; the second call does nothing."""
        self._released.set()
        if self._guardian is not None and self._guardian is not threading.current_thread():
            self._guardian.join()
        if self._lock is not None:
            # Closed, not unlocked: a forked process may still rely on it.
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def embedded_uri(project_directory: Path) -> str:
    """URI of the project's server while it runs, for programs with their own client.

    Raises
    ------
    DatabaseError
        No private directory for the socket can be made.
    """
    files = ServerFiles(project_directory.resolve() / "database")
    state = read_state(files)
    if state is not None and keeper_lives(files, state):
        return _uri(Path(state.socket))
    return _uri(socket_path(files))


def status(project_directory: Path) -> ServerStatus:
    """State of the project's embedded server, without starting or changing anything."""
    files = ServerFiles(project_directory.resolve() / "database")
    state = read_state(files)
    alive = state is not None and keeper_lives(files, state)
    running = alive and state is not None and server_answers(Path(state.socket))
    return ServerStatus(
        running=running,
        kept=files.keep_running.exists(),
        uri=_uri(Path(state.socket)) if running and state else "",
        version=state.version if running and state else "",
        keeper_pid=state.keeper_pid if alive and state else 0,
        mongod_pid=state.mongod_pid if running and state else 0,
        clients=len(lock_holders(files.clients_lock)),
        data_bytes=_data_bytes(files),
        reason=state.reason if state and not alive else "",
    )


def keep_running(project_directory: Path) -> None:
    """Have the server stay without clients, from now on until `stop`; start it if needed.

    Raises
    ------
    DatabaseError
        As `acquire`.
    """
    with acquire(project_directory):
        marker = ServerFiles(project_directory.resolve() / "database").keep_running
        try:
            marker.touch(mode=0o600)
        except OSError as error:
            raise explain_file_error(error, marker.parent) from error


def stop(project_directory: Path, *, force: bool = False, timeout_s: float = 60.0) -> bool:
    """Stop the project's server now if nobody uses it; otherwise when its last client ends.

    Parameters
    ----------
    force
        Stop it under its clients' feet too. A client that still lives brings it back, so this is
        for clients that hang.

    Returns
    -------
    Whether it is stopped; False while clients use it.

    Raises
    ------
    DatabaseError
        It runs on another host, or does not end in time.
    """
    if not (project_directory / "database").is_dir():
        return True
    files = prepare(project_directory)
    files.keep_running.unlink(missing_ok=True)
    # Held to the end, so that nobody connects to a server that is going.
    clients = try_lock(files.clients_lock, fcntl.LOCK_EX)
    try:
        if clients is None and not force and keeper_lives(files, read_state(files)):
            # It may also be the keeper that holds the lock while it stops.
            state = read_state(files)
            if state is None or state.phase != "stopping":
                return False
        _end_keeper(files, time.monotonic() + timeout_s)
    finally:
        if clients is not None:
            os.close(clients)
    return True


def _end_keeper(files: ServerFiles, deadline: float) -> None:
    """Ask the keeper to end, wait for its lock, and clear up after one that was killed."""
    asked = False
    while (lock := try_lock(files.keeper_lock, fcntl.LOCK_EX)) is None:
        state = read_state(files)
        if state is not None and keeper_lives(files, state) and not asked:
            refuse_other_host(files, state)
            asked = signal_process(
                state.keeper_pid, signal.SIGTERM, partial(keeper_lives, files, state)
            )
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"The embedded database in {files.directory} did not stop in time; "
                f"see {files.mongod_log}"
            )
        time.sleep(POLL_S)
    try:
        end_other_mongod(files)
        state = read_state(files)
        if state is not None:
            remove_socket(Path(state.socket))
    finally:
        os.close(lock)


def _share_clients_lock(files: ServerFiles, deadline: float) -> int:
    """Shared lock of a client; waits while a keeper stops its server."""
    while True:
        try:
            lock = try_lock(files.clients_lock, fcntl.LOCK_SH)
        except OSError as error:
            raise explain_file_error(error, files.directory) from error
        if lock is not None:
            return lock
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"The embedded database in {files.directory} has been stopping for too long; see "
                f"{files.mongod_log} and run again"
            )
        time.sleep(POLL_S)


def _uri(socket: Path) -> str:
    return f"mongodb://{quote(str(socket), safe='')}/?directConnection=true"


def _data_bytes(files: ServerFiles) -> int:
    """Disk space of the data files in bytes."""
    total = 0
    for path in files.data.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except OSError:
            continue
    return total
