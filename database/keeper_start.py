"""Bringing the keeper of an embedded server up, and waiting for its word."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from hullscreen.database.keeper import EXIT_ANOTHER_KEEPS
from hullscreen.database.mongod import find_mongod, program_version
from hullscreen.database.private_socket import server_answers, socket_path
from hullscreen.database.server_files import (
    ServerFiles,
    ServerState,
    keeper_lives,
    process_namespace,
    read_state,
)
from hullscreen.potentials.errors import DatabaseError

POLL_S = 0.03


def bring_up(
    files: ServerFiles, deadline: float, socket: Path | None, *, cache_gb: float, grace_s: float
) -> ServerState:
    """State of a server that accepts connections; starts a keeper wherever none lives."""
    while True:
        state = read_state(files)
        if state is not None and keeper_lives(files, state):
            refuse_other_host(files, state)
            if state.phase == "running" and server_answers(Path(state.socket)):
                return state
        else:
            _start_keeper(files, deadline, socket, cache_gb=cache_gb, grace_s=grace_s)
        if time.monotonic() > deadline:
            raise _explain_delay(files, state)
        time.sleep(POLL_S)


def _explain_delay(files: ServerFiles, state: ServerState | None) -> DatabaseError:
    """Sentence for a server that did not become ready in time."""
    if state is not None and state.phase == "running" and not Path(state.socket).is_socket():
        return DatabaseError(
            f"The embedded database in {files.directory} runs, but its socket {state.socket} "
            "cannot be seen from here, as in a job with a temporary directory of its own: run "
            "where it was started, or give a MongoDB URI"
        )
    return DatabaseError(
        f"The embedded database in {files.directory} is not ready yet: a large one recovers "
        f"for minutes after a kill; run again, or see {files.mongod_log}"
    )


def _start_keeper(
    files: ServerFiles, deadline: float, socket: Path | None, *, cache_gb: float, grace_s: float
) -> None:
    """Start a keeper and wait for what it says; another one that is starting is as good."""
    program = find_mongod()
    command = [
        sys.executable,
        "-m",
        "hullscreen.database.keeper",
        str(files.directory),
        f"--program={program}",
        f"--version={program_version(program)}",
        f"--socket={socket or socket_path(files)}",
        f"--cache-gb={cache_gb}",
        f"--grace-s={grace_s}",
    ]
    # The keeper finds this very package, wherever this process found it.
    folders = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env=environment,
    ) as starter:
        _wait_for_word(files, starter, deadline)


def _wait_for_word(files: ServerFiles, starter: subprocess.Popen[bytes], deadline: float) -> None:
    """Read the keeper's one line; silence means that it was killed, or is another's turn."""
    if starter.stdout is None or starter.stderr is None:
        raise DatabaseError("The embedded database's keeper was started without its pipes")
    ready, _, _ = select.select([starter.stdout], [], [], max(deadline - time.monotonic(), 0.0))
    if not ready:
        return
    line = starter.stdout.readline()
    if line:
        reason = json.loads(line).get("reason")
        if reason:
            raise DatabaseError(reason)
        return
    code = starter.wait()
    if code not in (0, EXIT_ANOTHER_KEEPS) and code > 0:
        last = starter.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise DatabaseError(
            f"The embedded database's keeper for {files.directory} could not start: {last}"
        )


def refuse_other_host(files: ServerFiles, state: ServerState) -> None:
    """Refuse a server whose socket is on another machine."""
    if state.namespace != process_namespace():
        raise DatabaseError(
            f"The embedded database in {files.directory} runs on host {state.host} and can be "
            "reached only there: run there, or give a MongoDB URI that all hosts reach"
        )
