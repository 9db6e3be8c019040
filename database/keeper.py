"""The keeper: a small process that owns one project's mongod and outlives the commands that use it.

``python -m hullscreen.database.keeper DATABASE_DIRECTORY ...`` takes the keeper's lock, leaves its
parent, starts mongod, restarts it when it is killed, and stops it when no client is left. On
standard output it says one line of JSON, ``{"ready": true}`` or ``{"reason": "..."}``; a full disk
cannot swallow that one. Nothing heavy may be imported here: it stays in memory as long as the
server does.
"""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hullscreen.database.mongod import (
    end_other_mongod,
    explain_failure,
    server_command,
    start_mongod,
)
from hullscreen.database.private_socket import (
    make_private_directory,
    remove_socket,
    server_answers,
)
from hullscreen.database.server_files import (
    HEARTBEAT_S,
    ServerFiles,
    ServerState,
    check_room,
    explain_file_error,
    process_namespace,
    process_start,
    try_lock,
    write_state,
)
from hullscreen.potentials.errors import DatabaseError

EXIT_ANOTHER_KEEPS = 3
TICK_S = 0.25
LARGEST_LOG_BYTES = 10_000_000
# A clean stop writes a checkpoint; after so long the journal is trusted instead.
STOP_LIMIT_S = 30.0
# Recovery of a large journal takes minutes; a server that hangs for longer will not come.
START_LIMIT_S = 900.0
# A server that died this often within the window, however it was killed, is given up.
DEATHS_ALLOWED = 20
DEATHS_WINDOW_S = 60.0
FAILED_STARTS_ALLOWED = 3
BACKOFF_S = (0.0, 0.5, 2.0)

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@dataclass(frozen=True)
class KeeperOptions:
    """What the starting command decided."""

    files: ServerFiles
    program: Path
    version: str
    socket: Path
    cache_gb: float
    grace_s: float


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns at once in the calling process and goes on in a forked one."""
    options = _parse(arguments)
    os.umask(0o077)
    try:
        lock = try_lock(options.files.keeper_lock, fcntl.LOCK_EX)
    except OSError as error:
        _report({"reason": str(explain_file_error(error, options.files.directory))})
        return 0
    if lock is None:
        return EXIT_ANOTHER_KEEPS
    # The flock belongs to the open file, so the forked process holds it without a gap. Forked, it
    # is nobody's child, and nobody has to wait for it.
    if os.fork() != 0:
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    return _keep(options, lock)


def _keep(options: KeeperOptions, lock: int) -> int:
    keeper = Keeper(options, os.fstat(lock).st_ino)
    try:
        with options.files.keeper_log.open("ab") as errors:
            os.dup2(errors.fileno(), 2)
        keeper.run()
    except DatabaseError as error:
        keeper.give_up(str(error))
    except OSError as error:
        keeper.give_up(str(explain_file_error(error, options.files.directory)))
    return 0


def _parse(arguments: list[str] | None) -> KeeperOptions:
    parser = argparse.ArgumentParser(prog="hullscreen.database.keeper")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--cache-gb", type=float, required=True)
    parser.add_argument("--grace-s", type=float, required=True)
    given = parser.parse_args(arguments)
    return KeeperOptions(
        ServerFiles(given.directory),
        given.program,
        given.version,
        given.socket,
        given.cache_gb,
        given.grace_s,
    )


def _report(outcome: dict[str, object]) -> None:
    """Tell the command that waits on standard output, once, and let go of it."""
    line = (json.dumps(outcome) + "\n").encode()
    with contextlib.suppress(BrokenPipeError):
        os.write(1, line)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


@dataclass
class Keeper:
    """One server and the loop around it; only `run` and `give_up` are called from outside."""

    options: KeeperOptions
    lock_inode: int
    child: subprocess.Popen[bytes] | None = None
    stop_asked: bool = False
    deaths: list[float] = field(default_factory=list)
    beaten_at: float = 0.0

    def __post_init__(self) -> None:
        pid = os.getpid()
        self.state = ServerState(
            phase="starting",
            host=socket.gethostname(),
            namespace=process_namespace(),
            keeper_pid=pid,
            keeper_start=process_start(pid),
            socket=str(self.options.socket),
            version=self.options.version,
            directory=str(self.options.files.directory),
            inode=self.options.files.directory.stat().st_ino,
        )

    def run(self) -> None:
        """Keep the server until nobody needs it.

        Raises
        ------
        DatabaseError
            It cannot be started, or dies again and again.
        OSError
            The database directory cannot be written to.
        """
        self._say(self.state)
        check_room(self.options.files)
        end_other_mongod(self.options.files)
        self._start_patiently()
        _report({"ready": True})
        # The clients' lock is then held to the end of this process, so that a new client waits for
        # that and starts a new server.
        while self._watch() == "died":
            self._note_death()
            self._say(replace(self.state, phase="starting"))
            self._start_patiently()
        if self._owns_directory():
            self._say(replace(self.state, phase="stopping"))
        self._end_child()
        if self._owns_directory():
            self._say(replace(self.state, phase="stopped", mongod_pid=0))

    def give_up(self, reason: str) -> None:
        """End the server, say why to whoever waits, and record it if the disk allows."""
        self._end_child()
        with contextlib.suppress(OSError):
            if self._owns_directory():
                self._say(replace(self.state, phase="failed", mongod_pid=0, reason=reason))
        _report({"reason": reason})

    def _say(self, state: ServerState) -> None:
        self.state = state
        write_state(self.options.files, state)
        self.beaten_at = time.monotonic()

    def _start_patiently(self) -> None:
        """Start mongod, again after a pause where a reason is not known to stay."""
        log = self.options.files.mongod_log
        for pause in BACKOFF_S[:FAILED_STARTS_ALLOWED]:
            time.sleep(pause)
            self._start()
            if self._wait_until_ready():
                self._say(replace(self.state, phase="running"))
                return
            if self.stop_asked:
                return
            check_room(self.options.files)
            text = _tail(log) + _tail(self.options.files.keeper_log)
            reason = explain_failure(text)
            if reason:
                break
            reason = f"mongod ended with code {self._exit_code()} while starting"
        raise DatabaseError(
            f"The embedded database in {self.options.files.directory} cannot run: {reason} "
            f"(the server's log is {log})"
        )

    def _start(self) -> None:
        files = self.options.files
        files.data.mkdir(mode=0o700, exist_ok=True)
        if files.mongod_log.exists():
            files.mongod_log.replace(files.mongod_log.with_suffix(".log.1"))
        make_private_directory(self.options.socket.parent.parent)
        make_private_directory(self.options.socket.parent)
        with files.keeper_log.open("ab") as errors:
            errors.truncate(0)
            command = server_command(
                self.options.program,
                files.data,
                self.options.socket,
                files.mongod_log,
                cache_gb=self.options.cache_gb,
            )
            self.child = start_mongod(command, errors.fileno())
        self._say(replace(self.state, phase="starting", mongod_pid=self.child.pid))

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + START_LIMIT_S
        while self._child_lives():
            if server_answers(self.options.socket):
                return True
            if self._signalled(0.02) or time.monotonic() > deadline:
                self._end_child()
                return False
            self._beat()
        return False

    def _watch(self) -> Literal["died", "unneeded"]:
        """Wait until the server died, or is not needed any more or told to stop."""
        idle_since: float | None = None
        while True:
            if self.stop_asked or self._signalled(TICK_S) or not self._owns_directory():
                return "unneeded"
            if not self._child_lives():
                return "died"
            if not self.options.socket.is_socket():
                # Something cleaned the temporary directory; nobody can connect any more.
                self._end_child()
                return "died"
            self._beat()
            self._rotate_log()
            lock = try_lock(self.options.files.clients_lock, fcntl.LOCK_EX)
            if lock is None or self.options.files.keep_running.exists():
                idle_since = None
            else:
                now = time.monotonic()
                idle_since = now if idle_since is None else idle_since
                if now - idle_since >= self.options.grace_s:
                    return "unneeded"
            if lock is not None:
                os.close(lock)

    def _signalled(self, wait_s: float) -> bool:
        """Sleep until a signal or the time is over; whether this process was told to stop."""
        received = signal.sigtimedwait(_SIGNALS, wait_s)
        if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
            self.stop_asked = True
        return self.stop_asked

    def _child_lives(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def _exit_code(self) -> int | None:
        return None if self.child is None else self.child.returncode

    def _owns_directory(self) -> bool:
        """Whether the database directory is still this one: it may have been removed or renamed."""
        try:
            return self.options.files.keeper_lock.stat().st_ino == self.lock_inode
        except OSError:
            return False

    def _beat(self) -> None:
        """Renew the time of the state, by which other hosts know that this keeper lives."""
        if time.monotonic() - self.beaten_at > HEARTBEAT_S:
            self.beaten_at = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self.options.files.state)

    def _rotate_log(self) -> None:
        log = self.options.files.mongod_log
        with contextlib.suppress(OSError):
            if log.stat().st_size > LARGEST_LOG_BYTES and self.child is not None:
                log.replace(log.with_suffix(".log.1"))
                self.child.send_signal(signal.SIGUSR1)

    def _note_death(self) -> None:
        now = time.monotonic()
        self.deaths = [*(at for at in self.deaths if now - at < DEATHS_WINDOW_S), now]
        if len(self.deaths) > DEATHS_ALLOWED:
            raise DatabaseError(
                f"The embedded database in {self.options.files.directory} died "
                f"{len(self.deaths)} times within {DEATHS_WINDOW_S:g} s, last with code "
                f"{self._exit_code()}; see {self.options.files.mongod_log} and run again"
            )

    def _end_child(self) -> None:
        """Stop mongod cleanly, or at once where its data are gone or it does not react."""
        if self.child is None:
            return
        self.child.send_signal(signal.SIGTERM if self._owns_directory() else signal.SIGKILL)
        try:
            self.child.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        remove_socket(self.options.socket)


def _tail(path: Path, n_bytes: int = 200_000) -> str:
    """End of a text file; empty if it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(path.stat().st_size - n_bytes, 0))
            return stream.read().decode(errors="replace") + "\n"
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
