"""Holding a step while it is carried out: a claim, and the thread that keeps it alive."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hullscreen.database.claims import Claims
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.database.server_files import process_namespace, process_start
from hullscreen.potentials.errors import ClaimLostError, DatabaseError

LOCAL = "hullscreen"
# Where queues tell their jobs who they are: Slurm, PBS, SGE.
JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "JOB_ID")

# Signs of life of another step that are awaited before a calculation is taken from it.
HEARTBEATS_AWAITED = 3
LONGEST_PAUSE_S = 1.0


def worker_name() -> str:
    """Name of this process as an FWorker."""
    pid = os.getpid()
    return "|".join([*_here(), str(pid), process_start(pid)])


def _here() -> list[str]:
    """How names of workers begin on this host; in each of its containers processes count anew."""
    return [LOCAL, socket.gethostname(), process_namespace().rpartition(" ")[2]]


def is_gone(name: str) -> bool:
    """Whether a worker of this host has ended; of others nothing is known."""
    *where, pid, start = ["", *name.split("|")]
    here = _here()
    # Earlier versions did not name the container.
    if where[1:] not in (here, here[:2]):
        return False
    return process_start(int(pid)) != start


def queue_job() -> str:
    """Number of the queue's job that this process runs in; empty outside a queue.

    Some servers of PBS add their own names to it, and not everywhere the same.
    """
    name = next((os.environ[name] for name in JOB_VARIABLES if os.environ.get(name)), "")
    return re.split(r"\D", name, maxsplit=1)[0]


@dataclass
class Held:
    """A step that this process holds, or has held.

    Attributes
    ----------
    claims, fw_id, token
        Where the claim stands, and which it is.
    heartbeat_s
        Seconds from one sign of life to the next.
    """

    claims: Claims
    fw_id: int
    token: int
    heartbeat_s: float
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

    def keep_alive(self) -> None:
        """Give signs of life until the step ends; what others see while they look for lost ones."""
        while not self._ended.wait(self.heartbeat_s):
            try:
                if not self.claims.beat(self.fw_id, self.token):
                    return
            except (*SERVER_AWAY, DatabaseError):
                # Nobody else sees the server either; the next beat may reach it.
                continue

    @contextmanager
    def computing(self, key: str) -> Iterator[None]:
        """Compute something that no other step computes at the same time: wait until it is done.

        A step of which nothing is heard is not waited for. That of another campaign may have
        another heartbeat.
        """
        heard, silent_since = None, 0.0
        while (other := self.claims.take_calculation(key, self.fw_id, self.token)) is not None:
            now = time.monotonic()
            if other != heard:
                heard, silent_since = other, now
            awaited_s = HEARTBEATS_AWAITED * max(self.heartbeat_s, other.heartbeat_s)
            if is_gone(other.holder) or now - silent_since > awaited_s:
                self.claims.leave_calculation(key, other.fw_id, other.token)
            else:
                time.sleep(min(LONGEST_PAUSE_S, self.heartbeat_s))
                self.require()
        try:
            yield
        finally:
            self.claims.leave_calculation(key, self.fw_id, self.token)

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
        heartbeat_s=heartbeat_s,
    )
    held = Held(claims, fw_id, token, heartbeat_s)
    # A daemon: a process that ends does not wait for its next beat.
    thread = threading.Thread(target=held.keep_alive, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        held.end()
