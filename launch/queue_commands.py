"""Talking to a cluster's queue: submitting, asking what it knows, cancelling.

The scripts are those of FireWorks' adapters. The commands are called here, because FireWorks keeps
to itself what a queue says when it refuses a job.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from fireworks.fw_config import FW_BLOCK_FORMAT, SUBMIT_SCRIPT_NAME

from hullscreen.database.addresses import URI_VARIABLE
from hullscreen.launch.directory_lock import lock
from hullscreen.launch.queue_files import job_script
from hullscreen.launch.worker_processes import URI_VARIABLE as WORKER_URI_VARIABLE
from hullscreen.potentials.errors import CampaignError

# A busy controller takes its time; nothing legitimate takes this long.
TIMEOUT_S = 120.0
# Jobs that are cancelled at once: a command line has an end.
CANCELLED_AT_ONCE = 500
# What queues say while they are away, not about the job.
PASSING = re.compile(
    r"(?i)unable to contact|timed out|timeout|connection refused|cannot connect|could not connect|"
    r"temporarily unavailable|try again|communication|unable to send|no response|not responding"
)
# What a queue says to a job is kept in the folder that the job is submitted from.
ANSWER_FILE = "FW_submit.answer"
# What queues put before their words.
PREAMBLE = re.compile(r"^(sbatch|squeue|scancel|qsub|qstat|qdel): *((error|fatal): *)?")


@dataclass(frozen=True)
class Queue:
    """A kind of queue: its programs, and how to read what they print.

    Attributes
    ----------
    title
        What people call it.
    submit, ask, cancel
        Commands; a script's name or the numbers of jobs are added to the first and the last.
    submitted
        Finds the job's number in what ``submit`` prints. Some servers of PBS add their own names
        to it, and not everywhere the same.
    listed
        Finds number, state and reason of jobs that wait or run in what ``ask`` prints, line by
        line; the latter two where the queue tells them.
    waiting
        States of jobs that have not begun.
    reasons
        What states alone say of why a job waits.
    """

    title: str
    submit: tuple[str, ...]
    ask: tuple[str, ...]
    cancel: tuple[str, ...]
    submitted: re.Pattern[str]
    listed: re.Pattern[str]
    waiting: re.Pattern[str]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class InQueue:
    """What a queue says of a job that has not ended.

    Attributes
    ----------
    state
        ``waiting`` or ``running``.
    reason
        Why it waits, in the queue's words; empty where that is nothing but its turn.
    """

    state: str
    reason: str = ""


# Slurm's words for a job whose turn comes by itself.
ITS_TURN = {"", "None", "Priority", "Resources", "BeginTime", "Cleaning", "Prolog"}
QUEUES = {
    "slurm": Queue(
        "Slurm",
        ("sbatch",),
        ("squeue", "--noheader", "--format=%A|%T|%r", "--user={user}"),
        ("scancel",),
        re.compile(r"Submitted batch job\s+(\d+)"),
        re.compile(r"^\s*(?P<number>\d+)(?:\|(?P<state>\w*)\|(?P<reason>.*?))?\s*$", re.MULTILINE),
        re.compile(r"PENDING|CONFIGURING|REQUEUE|SPECIAL_EXIT|_HOLD"),
        {},
    ),
    "pbs": Queue(
        "PBS",
        ("qsub",),
        ("qstat",),
        ("qdel",),
        re.compile(r"^(\d+)\S*\s*$", re.MULTILINE),
        # The last column but one is the state: C and F have ended.
        re.compile(r"^(?P<number>\d+)\S*\s.*\s(?P<state>[^CF\s])\s+\S+\s*$", re.MULTILINE),
        re.compile(r"[QHWT]"),
        {"H": "it is held"},
    ),
    "sge": Queue(
        "SGE",
        ("qsub",),
        ("qstat", "-u", "{user}"),
        ("qdel",),
        re.compile(r"[Yy]our job(?:-array)? (\d+)"),
        re.compile(
            r"^\s*(?P<number>\d+)\s(?:\s*\S+\s+\S+\s+\S+\s+(?P<state>[A-Za-z]+)\s)?", re.MULTILINE
        ),
        re.compile(r"w"),
        {"E": "it cannot begin, as `qstat -explain E` tells", "h": "it is held"},
    ),
}


class QueueError(CampaignError):
    """A queue refused something, or did not answer.

    Attributes
    ----------
    passing
        Whether it may answer if it is asked again.
    """

    def __init__(self, sentence: str, *, passing: bool) -> None:
        super().__init__(sentence)
        self.passing = passing


def require_programs(queue: Queue) -> None:
    """Refuse a queue whose programs are not there.

    Raises
    ------
    QueueError
        They are not.
    """
    for program, *_ in (queue.submit, queue.ask, queue.cancel):
        if shutil.which(program) is None:
            raise QueueError(
                f"the program {program} of {queue.title} is not on PATH: load its module, log in "
                "to a node that submits jobs, choose another --queue, or use `hullscreen run`",
                passing=False,
            )


def submit(queue: Queue, folder: Path) -> tuple[str, Path]:
    """Submit one job of a folder of launch files.

    Returns
    -------
    Number of the job, and the new folder that has its script and what it prints.

    Raises
    ------
    QueueError
        The queue refuses the job, or does not answer.
    """
    own = folder / f"launcher_{datetime.now(UTC).strftime(FW_BLOCK_FORMAT)}"
    own.mkdir()
    (own / SUBMIT_SCRIPT_NAME).write_text(job_script(folder, own))
    try:
        path = own / ANSWER_FILE
        with path.open("x+", encoding="utf-8", errors="replace") as answer:
            # Held by the queue's program too, and by it alone where this process is killed.
            lock(answer, fcntl.LOCK_EX)
            said = _call(queue, [*queue.submit, SUBMIT_SCRIPT_NAME], cwd=own, answer=answer)
    except QueueError as error:
        shutil.rmtree(own)
        raise QueueError(
            f"{queue.title} did not take the job of {folder}: {error}", passing=error.passing
        ) from error
    found = queue.submitted.search(said)
    if found is None:
        raise QueueError(
            f"{queue.title} took the job of {own}, but gave no job number: {_one_line(said)}",
            passing=False,
        )
    return found[1], own


def submitted_from(
    queue: Queue, folder: Path, remembered: Collection[str]
) -> Iterator[tuple[str, Path]]:
    """Jobs that were submitted by a process that was killed before it could remember them.

    Parameters
    ----------
    folder
        Folder of launch files.
    remembered
        Folders of the jobs that are known.

    Yields
    ------
    Number and folder of each, as `submit` returns them.
    """
    for path in sorted(folder.glob(f"launcher_*/{ANSWER_FILE}")):
        if str(path.parent) in remembered:
            continue
        with path.open(encoding="utf-8", errors="replace") as answer:
            # The queue's program may still be at it.
            lock(answer, fcntl.LOCK_SH)
            found = queue.submitted.search(answer.read())
        if found is not None:
            yield found[1], path.parent


def known_jobs(queue: Queue) -> dict[str, InQueue]:
    """Jobs of this user that wait or run, by their numbers.

    Raises
    ------
    QueueError
        The queue does not answer.
    """
    # Not what the environment says: that of another user would have none of our jobs.
    user = pwd.getpwuid(os.getuid()).pw_name
    said = _call(queue, [word.format(user=user) for word in queue.ask])
    return {found["number"]: _in_queue(queue, found) for found in queue.listed.finditer(said)}


def _in_queue(queue: Queue, found: re.Match[str]) -> InQueue:
    words = found.groupdict()
    state = words.get("state") or ""
    if not queue.waiting.search(state):
        return InQueue("running")
    reason = words.get("reason") or ""
    if reason in ITS_TURN:
        reason = next((why for mark, why in queue.reasons.items() if mark in state), "")
    return InQueue("waiting", reason)


def cancel(queue: Queue, jobs: Sequence[str]) -> None:
    """Cancel jobs.

    Raises
    ------
    QueueError
        The queue does not answer, or it refuses: PBS and SGE do if one of them has ended.
    """
    for start in range(0, len(jobs), CANCELLED_AT_ONCE):
        _call(queue, [*queue.cancel, *jobs[start : start + CANCELLED_AT_ONCE]])


def _call(
    queue: Queue,
    command: Sequence[str],
    cwd: Path | None = None,
    answer: IO[str] | None = None,
) -> str:
    """What a program of the queue prints; it goes into ``answer``, an open file, if there is one.

    A program that is at it does not notice that this process ends, in whatever way: it writes into
    files, and Ctrl-C does not reach it.
    """
    # Slurm copies the environment into the job: an address with a password stays here.
    hidden = (URI_VARIABLE, WORKER_URI_VARIABLE)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    with _scratch_file() as printed, _scratch_file() as complaints:
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=answer or printed,
                stderr=complaints,
                start_new_session=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise QueueError(
                f"{command[0]} of {queue.title} has not answered for {TIMEOUT_S:.0f} s",
                passing=True,
            ) from error
        except FileNotFoundError as error:
            raise QueueError(
                f"the program {command[0]} of {queue.title} is not on PATH any more", passing=False
            ) from error
        said, complained = (_content(stream) for stream in (answer or printed, complaints))
    if done.returncode:
        words = _one_line(complained or said)
        raise QueueError(
            words or f"{command[0]} ended with status {done.returncode} and no word",
            passing=PASSING.search(words) is not None,
        )
    return said


def _scratch_file() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def _content(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


def _one_line(text: str) -> str:
    """A program's words as a part of a sentence."""
    lines = [PREAMBLE.sub("", line.strip()).rstrip(".") for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))[:400]
