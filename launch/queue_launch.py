"""`hullscreen launch`: a campaign's work through a cluster's queue, watched until the hull."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from fireworks import LaunchPad

from hullscreen.database.addresses import redact
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.database.launchpad_state import fireworks_by_state
from hullscreen.launch import campaign_outcome, queue_commands
from hullscreen.launch.campaign_news import CampaignNews
from hullscreen.launch.campaign_session import Session
from hullscreen.launch.campaign_start import at_work, begin_pass, in_passes
from hullscreen.launch.jobs_in_queue import JobsInQueue
from hullscreen.launch.progress import Board
from hullscreen.launch.queue_commands import QUEUES, QueueError
from hullscreen.launch.queue_files import FOLDER, left_to_others, roles_of, write_queue_files
from hullscreen.launch.result_tables import clock
from hullscreen.launch.server_costs import ServerCosts
from hullscreen.potentials.errors import CampaignError, DatabaseError
from hullscreen.workflows import recovery
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.tending import Tender

POLL_S = 0.5
# How long nothing may be ready or running before the campaign counts as stuck: steps follow at
# once.
PATIENCE_S = 5.0
OWN_SERVER = (
    "the campaign's own MongoDB server serves this machine alone, and only while this command runs"
)


def launch(session: Session, board: Board, queue_name: str, options: Sequence[str] = ()) -> None:
    """Keep jobs in the queue until the campaign is finished.

    Parameters
    ----------
    queue_name
        A key of `hullscreen.launch.queue_commands.QUEUES`.
    options
        What the command was started with, to be named where it is to be called again.

    Raises
    ------
    QueueError
        The queue's programs are missing, or it refuses the jobs.
    CampaignError
        A step failed, jobs end without doing anything, the campaign is paused or was cancelled, or
        another supervisor is at work.
    KeyboardInterrupt
        This process was asked to end; jobs in the queue go on.
    """
    queue = QUEUES[queue_name]
    queue_commands.require_programs(queue)
    with at_work(session, "launch", options) as (campaign, launchpad):
        uri, root = session.connection.uri, session.directory / FOLDER
        folders = write_queue_files(root, session.settings, uri, queue_name, uuid.uuid4().hex)
        if not folders:
            raise CampaignError(
                "there is nothing to launch: [launch.relax], [launch.train] and [launch.dft] all "
                "say jobs = 0"
            )
        for category in left_to_others(session.settings.launch):
            board.note(
                f"no job takes {category} steps, for [launch.{category}] says jobs = 0: they wait "
                f"for `hullscreen worker {session.directory} --category {category}`"
            )
        if session.connection.embedded:
            board.note(OWN_SERVER)
        jobs = JobsInQueue(session, queue, folders, board)
        jobs.adopt()
        silence = _SilenceNote(board)
        session.connection.silence.tell = silence.say
        tender = Tender(launchpad, campaign)
        news = CampaignNews(session.connection, session.directory, board)
        watch = _Watch(session, campaign, launchpad, board, jobs, tender, silence, news)
        try:
            in_passes(session, campaign, launchpad, watch.until_finished)
        except CampaignError:
            if jobs.alive:
                board.note(jobs.staying())
            raise
        jobs.cancel()


@dataclass
class _SilenceNote:
    """Says once that the database does not answer, and once that it does."""

    board: Board
    _said: bool = False

    def say(self, since: datetime) -> None:
        """It has not answered since then."""
        if not self._said:
            self.board.note(f"the database has not answered since {clock(since)}; waiting")
        self._said = True

    def say_error(self, error: Exception) -> None:
        """It refuses what is asked, or is away."""
        if isinstance(error, DatabaseError):
            if not self._said:
                self.board.note(f"{redact(str(error))}; waiting for it")
            self._said = True
        else:
            self.say(datetime.now(UTC))

    def end(self) -> None:
        """It answers."""
        if self._said:
            self.board.note(f"the database answers again, at {clock(datetime.now(UTC))}")
        self._said = False


@dataclass
class _Watch:
    """Watches a campaign whose work is done in a queue.

    Attributes
    ----------
    jobs
        Those in the queue.
    tender
        Brings back the steps of jobs that have ended.
    silence
        What is said while the database is away.
    news
        What is said of steps that fail, and of pauses.
    """

    session: Session
    campaign: Campaign
    launchpad: LaunchPad
    board: Board
    jobs: JobsInQueue
    tender: Tender
    silence: _SilenceNote
    news: CampaignNews
    _idle_since: float | None = None
    _next_look: float = 0.0
    _away: bool = False

    def until_finished(self) -> None:
        """Show progress, keep jobs in the queue and bring back what is lost, until the hull."""
        n_dft_jobs = self.session.settings.launch.dft.jobs
        progress = begin_pass(self.session, self.campaign, self.launchpad, self.board, n_dft_jobs)
        costs = ServerCosts(self.session)
        with _asked_to_end() as asked:
            while True:
                try:
                    if campaign_outcome.is_done(self.session, self.launchpad):
                        break
                    progress.show()
                    costs.charge()
                    self._look()
                    self._away = False
                    self.silence.end()
                except (*SERVER_AWAY, DatabaseError) as error:
                    self._wait_for_server(error)
                time.sleep(POLL_S)
                if asked:
                    self._leave()
        progress.show(now=True)
        costs.charge(now=True)
        for sentence in campaign_outcome.remarks(
            self.launchpad, self.campaign, self.session.directory, "launch"
        ):
            self.board.note(sentence)

    def _look(self) -> None:
        """Find out how things stand, and once per heartbeat mend them.

        Raises
        ------
        CampaignError
            The campaign was cancelled, or cannot go on.
        """
        state = self.session.store.campaign()
        if state.get("cancelled"):
            self._cancel_jobs()
            raise campaign_outcome.cancelled(self.session, "launch")
        now = time.monotonic()
        if now >= self._next_look:
            if self._away:
                # What was submitted just then could not be remembered.
                self.jobs.adopt()
            self.news.look(state)
            answered = self.jobs.ask()
            self.tender.look(self.jobs.lost())
            # A queue that does not say what it has may have enough.
            if answered and not state.get("paused"):
                states = fireworks_by_state(self.session.connection, self.session.store.name)
                self.jobs.keep(roles_of(self.session.settings.launch), states)
            self._next_look = time.monotonic() + self.campaign.heartbeat_s
        if not recovery.is_idle(self.launchpad, self.session.store):
            self._idle_since = None
            return
        self._idle_since = self._idle_since or now
        if now - self._idle_since > PATIENCE_S:
            recovery.resubmit(self.launchpad, self.campaign)
            if recovery.is_idle(self.launchpad, self.session.store):
                self._cancel_jobs()
                raise campaign_outcome.stuck(self.launchpad, self.campaign)

    def _cancel_jobs(self) -> None:
        """Take the jobs out of the queue; why the campaign ends matters more than those that stay.

        Both are said.
        """
        try:
            self.jobs.cancel()
        except QueueError as error:
            self.board.note(str(error))

    def _wait_for_server(self, error: Exception) -> None:
        """Say once that the database is away."""
        self._idle_since = None
        self.silence.say_error(error)
        self._away = True

    def _leave(self) -> NoReturn:
        """End without ending the jobs.

        Raises
        ------
        KeyboardInterrupt
            Always.
        """
        if self.jobs.alive:
            self.board.note(self.jobs.staying())
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
