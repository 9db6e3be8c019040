"""`hullscreen launch`: as many jobs in a cluster's queue as there is work for, until the hull."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fireworks import LaunchPad

from hullscreen.database.addresses import redact
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.database.launchpad_state import fireworks_by_state
from hullscreen.database.queue_jobs import QueueJob, QueueJobs
from hullscreen.launch import campaign_outcome, queue_commands
from hullscreen.launch.campaign_progress import CampaignProgress
from hullscreen.launch.campaign_session import Session
from hullscreen.launch.directory_lock import only_one
from hullscreen.launch.local_run import prepare
from hullscreen.launch.progress import Board
from hullscreen.launch.queue_commands import QUEUES, Queue, QueueError
from hullscreen.launch.queue_files import FOLDER, Role, roles_of, write_queue_files
from hullscreen.launch.server_costs import ServerCosts
from hullscreen.potentials.errors import CampaignError, DatabaseError
from hullscreen.workflows import recovery
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.decisions import new_labels, reopen
from hullscreen.workflows.flows import submit_campaign
from hullscreen.workflows.tending import Tender

POLL_S = 0.5
# How long nothing may be ready or running before the campaign counts as stuck: steps follow at
# once.
PATIENCE_S = 5.0
# A queue that refused a job for the moment is asked again after so long.
ASK_AGAIN_S = 60.0
# Jobs that end so many times in a row without any step being done have met a fault that stays; all
# those of a node that fails end at once.
MAX_FUTILE = 10
# Workers of a finished campaign end by themselves within a second or so.
GRACE_S = 5.0
# Steps that somebody may take, or has.
WORK = ("READY", "RESERVED", "RUNNING")
OWN_SERVER = (
    "the campaign's own MongoDB server serves this machine alone, and only while this command "
    "runs: for jobs on other nodes, give the address of a server of yours under [database]"
)


def launch(session: Session, board: Board, queue_name: str) -> bool:
    """Keep jobs in the queue until the campaign is finished.

    Parameters
    ----------
    queue_name
        A key of `hullscreen.launch.queue_commands.QUEUES`.

    Returns
    -------
    Whether the hull is there; False if the campaign was cancelled.

    Raises
    ------
    QueueError
        The queue's programs are missing, or it refuses the jobs.
    CampaignError
        A step failed, jobs end without doing anything, or another supervisor is at work.
    KeyboardInterrupt
        This process was asked to end; jobs in the queue go on.
    """
    queue = QUEUES[queue_name]
    queue_commands.require_programs(queue)
    with only_one(session.directory, "launch"):
        campaign, launchpad = prepare(session)
        with closing(launchpad.connection):
            uri = session.connection.uri
            root = session.directory / FOLDER
            run_id = uuid.uuid4().hex
            folders = write_queue_files(root, session.settings, uri, queue_name, run_id)
            if not folders:
                raise CampaignError(
                    "there is nothing to launch: [launch.relax], [launch.train] and [launch.dft] "
                    "all say jobs = 0"
                )
            jobs = _Jobs(session, queue, folders, board)
            tender = Tender(launchpad, campaign)
            supervisor = _Supervisor(session, campaign, launchpad, board, jobs, tender)
            return supervisor.work()


@dataclass
class _Jobs:
    """The jobs of a campaign in one queue.

    Attributes
    ----------
    folders
        Where the jobs of each category are submitted.
    alive
        Jobs that the queue knew when it was asked last, and those submitted since.
    futile
        How often jobs have ended since a step was done.
    """

    session: Session
    queue: Queue
    folders: Mapping[str, Path]
    board: Board
    alive: list[QueueJob] = field(default_factory=list)
    futile: int = 0
    last_ended: QueueJob | None = None
    _done: tuple[int, int] = (-1, -1)
    _not_before: float = 0.0
    _said: str = ""

    @property
    def directory(self) -> str:
        """What tells these jobs from those that were submitted from elsewhere."""
        return str(self.session.directory)

    @property
    def stored(self) -> QueueJobs:
        """What the database knows of them."""
        return QueueJobs(self.session.connection, self.session.store.name)

    def ask(self) -> set[str] | None:
        """Jobs that live, ours and others' with steps of the campaign; None for no answer."""
        others = self.stored.of_others(self.directory)
        try:
            numbers = queue_commands.known_jobs(self.queue)
        except QueueError as error:
            self._say(f"{self.queue.title} does not answer ({error}); it is asked again")
            return None
        jobs = self.stored.in_queue(self.directory)
        self.alive = [job for job in jobs if queue_commands.is_known(job.job_id, numbers)]
        ended = [job for job in jobs if job not in self.alive]
        self.stored.end(ended)
        if ended:
            self.last_ended = ended[-1]
            self.futile += 1
        return {job.job_id for job in self.alive} | others

    def keep(self, roles: list[Role], states: Mapping[str, Mapping[str, int]]) -> None:
        """Submit what is missing.

        Parameters
        ----------
        states
            Number of Fireworks by category and state.

        Raises
        ------
        QueueError
            The queue refuses jobs while it has none of ours.
        CampaignError
            Jobs end one after another, and nothing gets done.
        """
        self._refuse_futile(states)
        if time.monotonic() < self._not_before:
            return
        for role in roles:
            n_steps = sum(
                states.get(kind, {}).get(state, 0) for kind in role.takes for state in WORK
            )
            wanted = min(role.shape.jobs, -(-n_steps // role.processes))
            there = sum(job.category == role.category for job in self.alive)
            for number in range(there + 1, wanted + 1):
                if not self._submit(role, number):
                    return

    def cancel(self) -> None:
        """Take the jobs that are left out of the queue; workers that find nothing to do end."""
        deadline = time.monotonic() + GRACE_S
        while (self.ask() is None or self.alive) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if not self.alive:
            return
        names = [job.job_id for job in self.alive]
        queue_commands.cancel(self.queue, names)
        self.stored.end(self.alive)
        self.board.note(f"cancelled what was left in the queue: {_listed(names)}")
        self.alive = []

    def _submit(self, role: Role, number: int) -> bool:
        """Submit one job; False if the queue takes no more for the moment."""
        try:
            job_id, folder = queue_commands.submit(self.queue, self.folders[role.category])
        except QueueError as error:
            # Limits on a user's jobs pass; what is wrong with all of them does not.
            if not error.passing and not self.alive:
                raise
            self._say(f"{error}; tried again in {ASK_AGAIN_S:.0f} s")
            self._not_before = time.monotonic() + ASK_AGAIN_S
            return False
        self.stored.add(self.directory, job_id, role.category, str(folder))
        self.alive = self.stored.in_queue(self.directory)
        self._said = ""
        self.board.note(
            f"submitted {self.queue.title} job {job_id} for {role.category} "
            f"({number} of at most {role.shape.jobs})"
        )
        return True

    def _say(self, sentence: str) -> None:
        """Say what is the matter once, not at every look."""
        if sentence != self._said:
            self.board.note(sentence)
        self._said = sentence

    def _refuse_futile(self, states: Mapping[str, Mapping[str, int]]) -> None:
        completed = sum(counts.get("COMPLETED", 0) for counts in states.values())
        done = (completed, self.session.store.count_dft())
        if done != self._done:
            self._done, self.futile = done, 0
        if self.futile >= MAX_FUTILE and self.last_ended is not None:
            raise CampaignError(
                f"jobs have ended {MAX_FUTILE} times in a row and no step was done; the last one "
                f"wrote {_last_words(Path(self.last_ended.folder))}"
            )


@dataclass
class _Supervisor:
    """Watches a campaign whose work is done in a queue.

    Attributes
    ----------
    jobs
        Those in the queue.
    tender
        Brings back the steps of jobs that have ended.
    """

    session: Session
    campaign: Campaign
    launchpad: LaunchPad
    board: Board
    jobs: _Jobs
    tender: Tender

    def work(self) -> bool:
        """Submit jobs and watch until the hull is there; False if the campaign was cancelled."""
        if self.session.connection.embedded:
            self.board.note(OWN_SERVER)
        finished = True
        if not self._is_done() or campaign_outcome.lacking(self.launchpad, self.campaign):
            finished = self._one_pass()
        if finished and new_labels(self.campaign) > 0:
            finished = self._one_pass()
        self.jobs.cancel()
        return finished

    def _is_done(self) -> bool:
        return campaign_outcome.is_done(self.session, self.launchpad)

    def _begin(self) -> CampaignProgress:
        """Bring back what failed, and put what comes next into the LaunchPad."""
        store = self.session.store
        recovery.retry_failed(self.launchpad, self.campaign, all_steps=True)
        if store.campaign()["finished"] and recovery.is_idle(self.launchpad, store):
            self.board.note(
                f"{new_labels(self.campaign)} labels of jobs that were run again are learnt, and "
                "everything is screened once more"
            )
            reopen(self.campaign)
        recovery.resubmit(self.launchpad, self.campaign)
        submit_campaign(self.launchpad, self.campaign)
        shape = self.session.settings.launch.dft
        progress = CampaignProgress(self.campaign, self.board, shape.jobs)
        progress.begin()
        return progress

    def _one_pass(self) -> bool:
        progress = self._begin()
        costs = ServerCosts(self.session)
        idle_since: float | None = None
        next_look = 0.0
        away = False
        with _asked_to_end() as asked:
            while not asked:
                try:
                    if self._is_done():
                        break
                    if self.session.store.campaign().get("cancelled"):
                        return False
                    progress.show()
                    costs.charge()
                    if time.monotonic() >= next_look:
                        self._look()
                        next_look = time.monotonic() + self.campaign.heartbeat_s
                    idle = recovery.is_idle(self.launchpad, self.session.store)
                    away = False
                except (*SERVER_AWAY, DatabaseError) as error:
                    idle = False
                    if not away:
                        self.board.note(f"{redact(str(error))}; waiting for it")
                    away = True
                now = time.monotonic()
                idle_since = (idle_since or now) if idle else None
                if idle_since is not None and now - idle_since > PATIENCE_S:
                    recovery.resubmit(self.launchpad, self.campaign)
                    if recovery.is_idle(self.launchpad, self.session.store):
                        raise campaign_outcome.stuck(self.launchpad, self.campaign)
                time.sleep(POLL_S)
            if asked:
                self._leave()
        progress.show(now=True)
        costs.charge(now=True)
        directory = self.session.directory
        for sentence in campaign_outcome.remarks(
            self.launchpad, self.campaign, directory, "launch"
        ):
            self.board.note(sentence)
        return True

    def _look(self) -> None:
        """Ask the queue, bring back what jobs have left, and submit what is missing."""
        known = self.jobs.ask()
        self.tender.look(known)
        # A queue that does not say what it has may have enough.
        if known is not None and not self.session.store.campaign().get("paused"):
            states = fireworks_by_state(self.session.connection, self.session.store.name)
            self.jobs.keep(roles_of(self.session.settings.launch), states)

    def _leave(self) -> None:
        """End without ending the jobs.

        Raises
        ------
        KeyboardInterrupt
            Always.
        """
        names = [job.job_id for job in self.jobs.alive]
        if names:
            self.board.note(f"{_listed(names)} stay in the queue and go on")
            if self.session.connection.embedded:
                self.board.note(
                    "they need the MongoDB server, which ends with this command: `hullscreen db "
                    f"start {self.session.directory}` keeps it"
                )
        raise KeyboardInterrupt


@contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM: what is being submitted is remembered first; again, they end."""
    asked: list[int] = []

    def note(number: int, _frame: object) -> None:
        asked.append(number)
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listed(names: list[str]) -> str:
    """Jobs in a sentence; of many, how many."""
    if len(names) == 1:
        return f"job {names[0]}"
    return f"jobs {', '.join(names)}" if len(names) <= 10 else f"{len(names)} jobs"


def _last_words(folder: Path) -> str:
    """The end of what a job printed, and where it stands."""
    found = [path for path in folder.glob("*") if path.is_file() and path.stat().st_size]
    printed = [path for path in found if not path.name.endswith((".script", ".json"))]
    if not printed:
        return f"nothing; its script is in {folder}"
    newest = max(printed, key=lambda path: (path.suffix.startswith(".e"), path.stat().st_mtime))
    lines = newest.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{redact(lines[-1])!r} into {newest}" if lines else f"nothing into {newest}"
