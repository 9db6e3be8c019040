"""The jobs of a campaign in a cluster's queue: as many as there is work for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hullscreen.database.activity import steps_under_way
from hullscreen.database.addresses import redact
from hullscreen.database.queue_jobs import QueueJob, QueueJobs
from hullscreen.launch import queue_commands
from hullscreen.launch.campaign_session import Session
from hullscreen.launch.cancelled_jobs import cancel_jobs, listed
from hullscreen.launch.progress import Board
from hullscreen.launch.queue_commands import InQueue, Queue, QueueError
from hullscreen.launch.queue_files import Role
from hullscreen.potentials.errors import CampaignError

# A queue that refused a job for the moment is asked again after so long.
ASK_AGAIN_S = 60.0
# Jobs of a kind that end so many times in a row without taking a step, though some are ready, have
# met a fault that stays, such as a wrong line of `setup`. Those of a node that fails end together.
MAX_FRUITLESS = 3
# The same of jobs that take steps, none of which is ever done.
MAX_FUTILE = 10
# Whoever has lived longer may have found nothing to do.
SHORT_LIFE_S = 60.0
# What to do about a job that waits, where it is known.
ADVICE = {"PartitionTimeLimit": "lower walltime under [launch.{category}]"}
# Workers of a finished campaign end by themselves within a second or so.
GRACE_S = 5.0
# Of the end of what a job printed.
LINES_QUOTED = 2
LONGEST_QUOTE = 400


@dataclass
class JobsInQueue:
    """The jobs of a campaign that were submitted from its directory.

    Attributes
    ----------
    folders
        Launch files of the jobs of each category.
    alive
        Jobs that the queue knew when it was asked last, and those submitted since.
    futile, fruitless
        How often jobs have ended since a step was done, and, of each category, without taking one.
    last_ended
        The last one of them.
    """

    session: Session
    queue: Queue
    folders: Mapping[str, Path]
    board: Board
    alive: list[QueueJob] = field(default_factory=list)
    futile: int = 0
    fruitless: Counter[str] = field(default_factory=Counter)
    last_ended: QueueJob | None = None
    _ended: list[QueueJob] = field(default_factory=list)
    _worked: set[str] = field(default_factory=set)
    _waited_until: dict[str, float] = field(default_factory=dict)
    _reasons_said: set[tuple[str, str]] = field(default_factory=set)
    _done: tuple[int, int] = (-1, -1)
    _not_before: float = 0.0
    _said: str = ""

    def __post_init__(self) -> None:
        self._directory = str(self.session.directory)
        self._stored = QueueJobs(self.session.connection, self.session.store.name)

    def adopt(self) -> None:
        """Remember jobs that were submitted when the database, or this command, was going away."""
        remembered = self._stored.folders(self._directory)
        for category, folder in self.folders.items():
            found = queue_commands.submitted_from(self.queue, folder, remembered)
            for job_id, own in found:
                self._stored.add(self._directory, job_id, category, str(own))

    def ask(self) -> bool:
        """Ask the queue which jobs live; False if it does not answer.

        Raises
        ------
        QueueError
            The queue cannot be asked, and none of our jobs is known to be in it.
        """
        try:
            known = queue_commands.known_jobs(self.queue)
        except QueueError as error:
            if not error.passing and not self.alive:
                raise QueueError(
                    f"{self.queue.title} cannot be asked for its jobs: {error}", passing=False
                ) from error
            self._say(f"{self.queue.title} does not answer ({error}); it is asked again")
            return False
        jobs = self._stored.in_queue(self._directory)
        self.alive = [job for job in jobs if job.job_id in known]
        self._ended = [job for job in jobs if job.job_id not in known]
        self._stored.end(self._ended)
        if self._ended:
            self.last_ended = self._ended[-1]
            self.futile += 1
        for job in self.alive:
            self._note(job, known[job.job_id])
        return True

    def _note(self, job: QueueJob, found: InQueue) -> None:
        """Keep what the queue says of a job for `hullscreen status`, and say why it waits, once."""
        if found.state == "waiting" or job.job_id not in self._waited_until:
            self._waited_until[job.job_id] = time.monotonic()
        if (job.state, job.reason) != (found.state, found.reason):
            self._stored.note(job, found.state, found.reason)
        if found.reason and (job.job_id, found.reason) not in self._reasons_said:
            self._reasons_said.add((job.job_id, found.reason))
            advice = ADVICE.get(found.reason, "").format(category=job.category)
            said = f"{self.queue.title} job {job.job_id} ({job.category}) waits: {found.reason}"
            self.board.note(f"{said}; {advice}" if advice else said)

    def lost(self) -> set[str]:
        """Jobs that have ended and yet hold steps."""
        return self._stored.lost(self._directory)

    def keep(self, roles: Sequence[Role], states: Mapping[str, Mapping[str, int]]) -> None:
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
        # What workers elsewhere hold is no work for more jobs here.
        names = {job.job_id for job in self.alive}
        under_way = steps_under_way(self.session.connection, self.session.store.name)
        self._worked |= {step.job_id for step in under_way}
        held = Counter(step.category for step in under_way if step.job_id in names)
        self._refuse_futile(states)
        self._refuse_fruitless(roles, states)
        if time.monotonic() < self._not_before:
            return
        for role in roles:
            n_steps = sum(states.get(kind, {}).get("READY", 0) + held[kind] for kind in role.takes)
            wanted = min(role.shape.jobs, -(-n_steps // role.processes))
            there = sum(job.category == role.category for job in self.alive)
            for number in range(there + 1, wanted + 1):
                if not self._submit(role, number):
                    return

    def cancel(self) -> None:
        """Take the jobs that are left out of the queue; workers that find nothing to do end.

        Raises
        ------
        QueueError
            Some stay there.
        """
        # What was submitted while the database was going away is not remembered yet.
        self.adopt()
        try:
            cancelling = cancel_jobs(self.queue, self._stored, self._directory, grace_s=GRACE_S)
            for cancelled in cancelling:
                self.board.note(f"cancelled what was left in the queue: {listed(cancelled)}")
        finally:
            # Those that stay, the error names.
            self.alive = []

    def staying(self) -> str:
        """That the jobs stay, in a sentence."""
        verbs = (
            "stays in the queue and goes on"
            if len(self.alive) == 1
            else ("stay in the queue and go on")
        )
        return f"{listed(self.alive)} {verbs}"

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
        self._stored.add(self._directory, job_id, role.category, str(folder))
        self._waited_until[job_id] = time.monotonic()
        self.alive = self._stored.in_queue(self._directory)
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
            self.fruitless.clear()
        if self.futile >= MAX_FUTILE and self.last_ended is not None:
            raise CampaignError(
                f"jobs have ended {MAX_FUTILE} times in a row and no step was done; the last one "
                f"wrote {_last_words(Path(self.last_ended.folder))}"
            )

    def _refuse_fruitless(
        self, roles: Sequence[Role], states: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Say which jobs ended without taking a step that was ready; too many are an error."""
        ended, self._ended = self._ended, []
        for role in roles:
            mine = [job for job in ended if job.category == role.category]
            n_ready = sum(states.get(kind, {}).get("READY", 0) for kind in role.takes)
            without = self._stored.without_steps(
                [job for job in mine if job.job_id not in self._worked]
            )
            if len(without) < len(mine):
                self.fruitless[role.category] = 0
            lives = {job.job_id: self._lived_s(job) for job in without}
            longest = max(SHORT_LIFE_S, self.session.settings.launch.idle_s)
            short = [job for job in without if lives[job.job_id] < longest]
            if not n_ready or not short:
                continue
            last, words = short[-1], _last_words(Path(short[-1].folder))
            self.fruitless[role.category] += 1
            if self.fruitless[role.category] >= MAX_FRUITLESS:
                raise CampaignError(
                    f"jobs for {role.category} have ended {MAX_FRUITLESS} times in a row without "
                    f"taking a step, though some are ready; the last one, {last.job_id}, wrote "
                    f"{words}"
                )
            self.board.note(
                f"job {last.job_id} ({role.category}) ended after {lives[last.job_id]:.0f} s and "
                f"did nothing; it wrote {words}"
            )

    def _lived_s(self, job: QueueJob) -> float:
        """Time since a job began, s, as far as the looks at the queue tell."""
        now = time.monotonic()
        return now - self._waited_until.get(job.job_id, now)


def _last_words(folder: Path) -> str:
    """The end of what a job printed, and where it stands."""
    ours = (".script", ".answer", ".json")
    printed = [
        path
        for path in folder.glob("*")
        if path.is_file() and path.stat().st_size and path.suffix not in ours
    ]
    if not printed:
        return f"nothing; its script is in {folder}"
    newest = max(printed, key=lambda path: (path.suffix.startswith(".e"), path.stat().st_mtime))
    lines = newest.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = "; ".join(line.strip() for line in lines[-LINES_QUOTED:])[-LONGEST_QUOTE:]
    return f"{redact(last)!r} into {newest}" if lines else f"nothing into {newest}"
