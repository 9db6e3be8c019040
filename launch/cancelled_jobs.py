"""Taking a campaign's jobs out of a cluster's queue, and seeing that none of them stays there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from hullscreen.database.queue_jobs import QueueJob, QueueJobs
from hullscreen.launch import queue_commands
from hullscreen.launch.queue_commands import InQueue, Queue, QueueError

POLL_S = 0.5
# A queue that is away, or refuses, is asked again for so long: controllers start again within it.
PATIENCE_S = 60.0
# More are counted, not named.
NAMED_AT_MOST = 10


def cancel_jobs(
    queue: Queue, stored: QueueJobs, directory: str, *, grace_s: float = 0.0
) -> Iterator[list[QueueJob]]:
    """Cancel the jobs that were submitted from a campaign directory.

    Parameters
    ----------
    grace_s
        How long jobs that have begun may take to end by themselves, s. Those that wait would only
        begin: they are cancelled at once.

    Yields
    ------
    Jobs that the queue has just agreed to cancel.

    Raises
    ------
    QueueError
        The queue does not answer, or refuses: some jobs may stay in it.
    """
    began = time.monotonic()
    while left := stored.in_queue(directory):
        spent_s = time.monotonic() - began
        try:
            known = queue_commands.known_jobs(queue)
            stored.end([job for job in left if job.job_id not in known])
            left = [job for job in left if job.job_id in known]
            chosen = [job for job in left if spent_s >= grace_s or _waits(known[job.job_id])]
            # Queues that refuse because one has ended meanwhile do not know it at the next look.
            queue_commands.cancel(queue, [job.job_id for job in chosen])
        except QueueError as error:
            if spent_s >= grace_s + PATIENCE_S:
                raise _refused(queue, left, error) from error
        else:
            stored.end(chosen)
            if chosen:
                yield chosen
            if chosen == left:
                return
        time.sleep(POLL_S)


def _waits(found: InQueue) -> bool:
    return found.state == "waiting"


def _refused(queue: Queue, left: Sequence[QueueJob], error: QueueError) -> QueueError:
    command = " ".join([*queue.cancel, *(job.job_id for job in left)])
    verb = "stays" if len(left) == 1 else "stay"
    return QueueError(
        f"{listed(left)} of this campaign {verb} in the queue, for {queue.title} could not be made "
        f"to cancel: {error}; `{command}` does it once {queue.title} answers",
        passing=error.passing,
    )


def listed(jobs: Sequence[QueueJob]) -> str:
    """The jobs in a sentence; of many, how many."""
    names = [job.job_id for job in jobs]
    if len(names) == 1:
        return f"job {names[0]}"
    return f"jobs {', '.join(names)}" if len(names) <= NAMED_AT_MOST else f"{len(names)} jobs"
