"""`hullscreen run`: local workers, watched, until the hull is there."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fireworks import LaunchPad

from hullscreen.database.addresses import redact
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.launch import campaign_outcome
from hullscreen.launch.campaign_progress import CampaignProgress
from hullscreen.launch.campaign_session import Session
from hullscreen.launch.campaign_start import at_work, begin_pass, in_passes
from hullscreen.launch.progress import Board
from hullscreen.launch.server_costs import ServerCosts
from hullscreen.launch.worker_processes import URI_VARIABLE, end_workers, start_worker
from hullscreen.potentials.errors import CampaignError, DatabaseError
from hullscreen.workflows import recovery
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.campaign_status import activity_of
from hullscreen.workflows.dft_jobs import RUN_VARIABLE
from hullscreen.workflows.flows import DFT, RELAX, TRAIN
from hullscreen.workflows.tending import Tender

POLL_S = 0.3
# A worker that ends this often in a row without any step being done has met a fault of ours or the
# machine's.
MAX_RESTARTS = 20
# How long nothing may be ready or running before the campaign counts as stuck: steps follow at
# once.
PATIENCE_S = 5.0


def run(session: Session, board: Board, n_workers: int, n_dft_workers: int = 0) -> None:
    """Work on a campaign with local processes until it is finished.

    Parameters
    ----------
    n_workers, n_dft_workers
        Processes for everything, and beside them processes for DFT only. If there are any of the
        latter, DFT is left to them.

    Raises
    ------
    CampaignError
        A step failed, and it is not DFT's failure on single structures; or another `run` is at
        work.
    DatabaseError
        The campaign's own server cannot be brought back; one of the user's is waited for.
    """
    roles: list[tuple[str, ...]] = [(RELAX, TRAIN) if n_dft_workers else ()] * n_workers
    roles += [(DFT,)] * n_dft_workers
    with at_work(session, "run") as (campaign, launchpad):
        in_passes(
            session,
            campaign,
            launchpad,
            lambda: _work(session, campaign, launchpad, board, roles),
        )


def _work(
    session: Session,
    campaign: Campaign,
    launchpad: LaunchPad,
    board: Board,
    roles: Sequence[Sequence[str]],
) -> None:
    """Bring back what an earlier run has left, then let workers do what there is to do."""
    if not activity_of(session.connection, session.store.campaign()).alive:
        recovery.unlock(launchpad, campaign)
    recovery.release_lost(launchpad, campaign)
    n_dft_workers = sum(not role or DFT in role for role in roles)
    progress = begin_pass(session, campaign, launchpad, board, n_dft_workers)
    with _Workers(session, launchpad, roles) as workers:
        _watch(session, campaign, launchpad, progress, workers)


def _watch(
    session: Session,
    campaign: Campaign,
    launchpad: LaunchPad,
    progress: CampaignProgress,
    workers: _Workers,
) -> None:
    """Show progress and mend what breaks, until the campaign is finished or cannot go on."""
    costs = ServerCosts(session)
    idle_since: float | None = None
    tender = Tender(launchpad, campaign)
    away = False
    while True:
        try:
            if campaign_outcome.is_done(session, launchpad):
                break
            progress.show()
            costs.charge()
            if session.store.campaign().get("cancelled"):
                raise campaign_outcome.cancelled(session, "run")
            if workers.restart_ended():
                recovery.release_lost(launchpad, campaign)
            tender.look()
            recovery.retry_failed(launchpad, campaign, all_steps=False)
            idle, away = recovery.is_idle(launchpad, session.store), False
        except (*SERVER_AWAY, DatabaseError) as error:
            # Its own server cannot be brought back; another one may be away for maintenance.
            if session.connection.embedded and isinstance(error, DatabaseError):
                raise
            idle = False
            if not away and isinstance(error, DatabaseError):
                progress.board.note(f"{redact(str(error))}; waiting for it")
                away = True
        now = time.monotonic()
        idle_since = (idle_since or now) if idle else None
        if idle_since is not None and now - idle_since > PATIENCE_S:
            recovery.release_lost(launchpad, campaign)
            recovery.resubmit(launchpad, campaign)
            if recovery.is_idle(launchpad, session.store):
                raise campaign_outcome.stuck(launchpad, campaign)
        time.sleep(POLL_S)
    progress.show(now=True)
    costs.charge(now=True)
    for sentence in campaign_outcome.remarks(launchpad, campaign, session.directory, "run"):
        progress.board.note(sentence)


@dataclass
class _Workers:
    """The processes that do the work; they end with this one, however it ends.

    Attributes
    ----------
    roles
        Categories of steps of each process; none: all.
    """

    session: Session
    launchpad: LaunchPad = field(repr=False)
    roles: Sequence[Sequence[str]]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    restarts: int = 0
    last_progress: tuple[int, int] = (-1, 0)

    def __enter__(self) -> Self:
        (self.session.directory / "logs").mkdir(exist_ok=True)
        self.processes = [self._start(number) for number in range(len(self.roles))]
        return self

    def __exit__(self, *_error: object) -> None:
        end_workers(self.processes)

    def restart_ended(self) -> bool:
        """Start workers anew that ended before the campaign did; says whether any had."""
        ended = [n for n, process in enumerate(self.processes) if process.poll() is not None]
        if not ended or campaign_outcome.is_done(self.session, self.launchpad):
            return False
        last = self.session.store.last_round()
        progress = (last.number if last else -1, self.session.store.count_dft())
        if progress != self.last_progress:
            self.last_progress, self.restarts = progress, 0
        for number in ended:
            self.restarts += 1
            if self.restarts > MAX_RESTARTS:
                raise CampaignError(
                    f"workers ended {MAX_RESTARTS} times without finishing anything, the last one "
                    f"with status {self.processes[number].returncode}; the reason is at the end of "
                    f"{self._log(number)}"
                )
            self.processes[number] = self._start(number)
        return True

    def _log(self, number: int) -> Path:
        return self.session.directory / "logs" / f"worker-{number}.log"

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        environment = {RUN_VARIABLE: self.run_id}
        if self.session.settings.database.uri:
            environment[URI_VARIABLE] = self.session.settings.database.uri
        role = self.roles[number]
        options = ("--category", *role) if role else ()
        with self._log(number).open("ab") as log:
            return start_worker(self.session.directory, *options, environment=environment, log=log)
