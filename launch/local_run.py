"""`hullscreen run`: local workers, watched, until the hull is there."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fireworks import LaunchPad

from hullscreen.database.connection import SERVER_AWAY
from hullscreen.launch.campaign_session import Session
from hullscreen.launch.launchpad_file import write_launchpad_file
from hullscreen.launch.progress import Board
from hullscreen.launch.server_costs import ServerCosts
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows import recovery
from hullscreen.workflows.campaign import Campaign, register
from hullscreen.workflows.decisions import new_labels, reopen
from hullscreen.workflows.dft_jobs import RUN_VARIABLE
from hullscreen.workflows.flows import STAGE_NAMES, prepare_launchpad, submit_campaign
from hullscreen.workflows.worker import launchpad_on

POLL_S = 0.3
# A large pool takes a while to count: the server has better things to do for so many times as long.
REST_AFTER_LOOKING = 20.0
# A worker that ends this often in a row without any step being done has met a fault of ours or the
# machine's.
MAX_RESTARTS = 20
# How long nothing may be ready or running before the campaign counts as stuck: steps follow at
# once.
PATIENCE_S = 5.0
FIREWORKS_CONFIG = "FW_config.yaml"
FIREWORKS_SETTINGS = """\
# Read by workers: a workflow lock that a killed process left behind is taken over after 15 s.
WFLOCK_EXPIRATION_SECS: 15
WFLOCK_EXPIRATION_KILL: true
PRINT_FW_JSON: false
"""


def prepare(session: Session) -> tuple[Campaign, LaunchPad]:
    """Register the campaign, make the LaunchPad usable, and write FireWorks' file for users.

    Raises
    ------
    CampaignError
        The database holds a campaign of this name with other settings.
    DFTError
        The engine cannot compute these elements.
    """
    campaign = Campaign(session.settings, session.store, session.directory / "calculations")
    register(campaign)
    launchpad = launchpad_on(session.connection.uri, session.connection.name)
    prepare_launchpad(launchpad)
    write_launchpad_file(session.directory, session.settings.database)
    return campaign, launchpad


def run(session: Session, board: Board, n_workers: int) -> None:
    """Work on a campaign with local processes until it is finished.

    Raises
    ------
    CampaignError
        A step failed, and it is not DFT's failure on single structures; or another `run` is at
        work.
    """
    with _only_one(session.directory):
        campaign, launchpad = prepare(session)
        with closing(launchpad.connection):
            if not _is_done(session, launchpad):
                _work(session, campaign, launchpad, board, n_workers)
            if new_labels(campaign) > 0:
                _work(session, campaign, launchpad, board, n_workers)


def _work(
    session: Session, campaign: Campaign, launchpad: LaunchPad, board: Board, n_workers: int
) -> None:
    """Bring back what an earlier run has left, then let workers do what there is to do."""
    recovery.unlock(launchpad, campaign)
    recovery.release_lost(launchpad, campaign)
    recovery.retry_failed(launchpad, campaign, all_steps=True)
    if session.store.campaign()["finished"] and recovery.is_idle(launchpad, session.store):
        board.note(
            f"{new_labels(campaign)} labels of jobs that were run again are learnt, and everything "
            "is screened once more"
        )
        reopen(campaign)
    recovery.resubmit(launchpad, campaign)
    submit_campaign(launchpad, campaign)
    with _Workers(session, launchpad, n_workers) as workers:
        _watch(session, campaign, launchpad, board, workers)


def _is_done(session: Session, launchpad: LaunchPad) -> bool:
    """Whether the hull is there, and no step that a user lets run once more is left."""
    if not session.store.campaign()["finished"]:
        return False
    try:
        return recovery.is_idle(launchpad, session.store)
    except SERVER_AWAY:
        return False


def _watch(
    session: Session, campaign: Campaign, launchpad: LaunchPad, board: Board, workers: _Workers
) -> None:
    """Show progress and mend what breaks, until the campaign is finished or cannot go on."""
    progress = _Progress(session, board)
    costs = ServerCosts(session)
    idle_since: float | None = None
    while not _is_done(session, launchpad):
        progress.show()
        costs.charge()
        try:
            if workers.restart_ended():
                recovery.release_lost(launchpad, campaign)
            recovery.retry_failed(launchpad, campaign, all_steps=False)
            idle = recovery.is_idle(launchpad, session.store)
        except SERVER_AWAY:
            idle = False
        now = time.monotonic()
        idle_since = (idle_since or now) if idle else None
        if idle_since is not None and now - idle_since > PATIENCE_S:
            recovery.release_lost(launchpad, campaign)
            recovery.resubmit(launchpad, campaign)
            if recovery.is_idle(launchpad, session.store):
                raise _stuck(launchpad, campaign)
        time.sleep(POLL_S)
    progress.show(now=True)
    costs.charge(now=True)
    failed = recovery.failures(launchpad, campaign)
    if failed:
        board.note(
            f"{len(failed)} DFT jobs failed and their structures were left out; "
            f"`lpad get_fws -s FIZZLED -d more` in {session.directory} shows them"
        )


def _stuck(launchpad: LaunchPad, campaign: Campaign) -> CampaignError:
    failed = [f for f in recovery.failures(launchpad, campaign) if f.category != "dft"]
    failed = failed or recovery.failures(launchpad, campaign)
    if failed:
        sentence = failed[-1].reason.partition(": ")[2] or failed[-1].reason
        return CampaignError(f"the step {failed[-1].name!r} failed: {sentence}")
    return CampaignError(
        "nothing of this campaign can run, and nothing failed; run again, and if that does not "
        "help, look at `lpad get_wflows`"
    )


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: two supervisors would mend each other's workers."""
    with (directory / "run.lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            raise CampaignError(
                f"`hullscreen run` is already at work in {directory} (process "
                f"{stream.read().strip() or 'unknown'}); wait for it or stop it"
            ) from error
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield


@dataclass
class _Workers:
    """The processes that do the work; they end with this one, however it ends."""

    session: Session
    launchpad: LaunchPad
    n_workers: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    restarts: int = 0
    last_progress: tuple[int, int] = (-1, 0)

    def __enter__(self) -> Self:
        logs = self.session.directory / "logs"
        logs.mkdir(exist_ok=True)
        (logs / FIREWORKS_CONFIG).write_text(FIREWORKS_SETTINGS, encoding="utf-8")
        self.processes = [self._start(number) for number in range(self.n_workers)]
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def restart_ended(self) -> bool:
        """Start workers anew that ended before the campaign did; says whether any had."""
        ended = [n for n, process in enumerate(self.processes) if process.poll() is not None]
        if not ended or _is_done(self.session, self.launchpad):
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
        logs = self.session.directory / "logs"
        environment = {
            **os.environ,
            # One process per core: threads inside would only get in each other's way.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            RUN_VARIABLE: self.run_id,
            "FW_CONFIG_FILE": str(logs / FIREWORKS_CONFIG),
        }
        # An address may hold a password, so it does not go onto a command line.
        if self.session.settings.database.uri:
            environment["HULLSCREEN_WORKER_DB_URI"] = self.session.settings.database.uri
        with self._log(number).open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "hullscreen.launch", "worker",
                    str(self.session.directory), "--parent", str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )  # fmt: skip


@dataclass
class _Progress:
    """What the board shows of a campaign."""

    session: Session
    board: Board
    round_seen: int = -2
    next_look: float = 0.0

    def show(self, *, now: bool = False) -> None:
        """Read the database and move the bars, if it was not done lately or has to be now."""
        began = time.monotonic()
        if now or began >= self.next_look:
            self._show()
            ended = time.monotonic()
            self.next_look = ended + REST_AFTER_LOOKING * (ended - began)

    def _show(self) -> None:
        store = self.session.store
        total = store.campaign()["pool"].get("total")
        last = store.last_round()
        if total is None or last is None:
            self.board.show("prototypes", store.count(), total)
            return
        if last.number != self.round_seen:
            self.round_seen = last.number
            self.board.note(self._round_sentence(last.number))
        for stage in (1, 2):
            # As many as the wave holds; an earlier stage had them all.
            wave = last.wave if last.stage == stage else total
            entered = store.count(stage={"$gte": stage}, order={"$lt": wave})
            if last.stage >= stage and entered:
                done = store.count(**{"relaxed.stage": {"$gte": stage}})
                self.board.show(f"{STAGE_NAMES[stage]}: structures relaxed", done, entered)
        asked = [selected.key for selected in store.selected(round=last.number)]
        if asked:
            done = len(store.dft_results(asked))
            self.board.show(f"round {last.number}: DFT single points", done, len(asked))
        if last.purpose == "final":
            done = store.count(stage=3, final={"$exists": True})
            self.board.show("final: DFT relaxations", done, len(last.final_indices))

    def _round_sentence(self, number: int) -> str:
        round_ = self.session.store.round(number)
        n_labels = len(self.session.store.selected(round=number))
        sentence = f"round {number} ({STAGE_NAMES[round_.stage]}): "
        if round_.purpose == "final":
            return f"{sentence}{len(round_.final_indices)} structures to relax with DFT"
        what = f"{n_labels} DFT single points to {round_.purpose}" if n_labels else "no new labels"
        sigma = f", σ {1e3 * round_.sigma['sigma']:.2f} meV/atom" if round_.sigma else ""
        return f"{sentence}{what}{sigma}"
