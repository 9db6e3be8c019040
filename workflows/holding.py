"""Holding a step while it is carried out: a claim, and the thread that keeps it alive."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hullscreen.database.claims import Claims
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.database.server_files import process_start
from hullscreen.potentials.errors import ClaimLostError, DatabaseError

LOCAL = "hullscreen"
# Where queues tell their jobs who they are: Slurm, PBS, SGE.
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID")


def worker_name() -> str:
    """Name of this process as an FWorker."""
    pid = os.getpid()
    return f"{LOCAL}|{socket.gethostname()}|{pid}|{process_start(pid)}"


def is_gone(name: str) -> bool:
    """Whether a worker of this host has ended; of others nothing is known."""
    parts = name.split("|")
    if len(parts) != 4 or parts[0] != LOCAL or parts[1] != socket.gethostname():
        return False
    return process_start(int(parts[2])) != parts[3]


def queue_job() -> str:
    """The queue's name for the job that this process runs in; empty outside a queue."""
    return next((os.environ[name] for name in JOB_VARIABLES if os.environ.get(name)), "")


@dataclass
class Held:
    """A step that this process holds, or has held.

    Attributes
    ----------
    claims, fw_id, token
        Where the claim stands, and which it is.
    """

    claims: Claims
    fw_id: int
    token: int
    _ended: threading.Event = field(default_factory=threading.Event)

    def require(self) -> None:
        """Refuse to go on with a step that was taken away.

        Raises
        ------
        ClaimLostError
            It was.
        """
        if not self.claims.is_held(self.fw_id, self.token):
            raise ClaimLostError(
                f"Firework {self.fw_id} was taken away from this process, of which nothing was "
                "heard for too long; another one does it"
            )

    def keep_alive(self, heartbeat_s: float) -> None:
        """Give signs of life until the step ends; what others see while they look for lost ones."""
        while not self._ended.wait(heartbeat_s):
            try:
                if not self.claims.beat(self.fw_id, self.token):
                    return
            except (*SERVER_AWAY, DatabaseError):
                # Nobody else sees the server either; the next beat may reach it.
                continue

    def end(self) -> None:
        """Stop the signs of life."""
        self._ended.set()


@contextmanager
def holding(claims: Claims, fw_id: int, category: str, heartbeat_s: float) -> Iterator[Held]:
    """Hold a Firework's step for as long as the block lasts."""
    token = claims.take(
        fw_id,
        category=category,
        holder=worker_name(),
        host=socket.gethostname(),
        job_id=queue_job(),
    )
    held = Held(claims, fw_id, token)
    # A daemon: a process that ends does not wait for its next beat.
    thread = threading.Thread(target=held.keep_alive, args=(heartbeat_s,), daemon=True)
    thread.start()
    try:
        yield held
    finally:
        held.end()
