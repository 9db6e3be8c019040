"""Jobs that were put into a cluster's queue for a campaign: what `hullscreen launch` remembers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hullscreen.database.collections import Collections
from hullscreen.database.documents import now

JOBS = "queue_jobs"
CLAIMS = "claims"
FIELDS = ("job_id", "category", "folder", "submitted_at", "state", "reason")


@dataclass(frozen=True)
class QueueJob:
    """A job in the queue.

    Attributes
    ----------
    job_id
        Its number in the queue.
    category
        Kind of steps that it takes.
    folder
        Where it was submitted: its script and what it printed.
    submitted_at
        When.
    state, reason
        ``waiting``, ``running``, or empty before the queue was asked; and why it waits, in the
        queue's words.
    """

    job_id: str
    category: str
    folder: str
    submitted_at: datetime | None
    state: str = ""
    reason: str = ""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> QueueJob:
        """The job of a document."""
        return cls(
            str(document["job_id"]),
            document["category"],
            document.get("folder", ""),
            document.get("submitted_at"),
            document.get("state", ""),
            document.get("reason", ""),
        )


class QueueJobs(Collections):
    """The jobs of one campaign.

    Numbers of jobs are those of one cluster. A campaign may be worked on from several: each is told
    from the others by ``directory``, the campaign directory that its jobs were submitted from.
    """

    def add(self, directory: str, job_id: str, category: str, folder: str) -> None:
        """Remember a job that was just submitted."""
        submitted_at = now()
        document = {
            # A name of its own: job numbers begin anew when a queue is set up again.
            "_id": f"{self.name}|{folder}|{job_id}",
            "campaign": self.name,
            "directory": directory,
            "job_id": job_id,
            "category": category,
            "folder": folder,
            "submitted_at": submitted_at,
            "ended_at": None,
        }
        self._insert(JOBS, document)

    def in_queue(self, directory: str) -> list[QueueJob]:
        """Jobs that nobody has found to have ended, the oldest first."""
        query = {"campaign": self.name, "directory": directory, "ended_at": None}
        found = self._find(JOBS, query, FIELDS, sort=["submitted_at", "job_id"])
        return [QueueJob.of(one) for one in found]

    def note(self, job: QueueJob, state: str, reason: str) -> None:
        """Note what the queue says of a job."""
        query = {"_id": self._id(job)}
        self._update(JOBS, query, {"$set": {"state": state, "reason": reason}})

    def without_steps(self, jobs: Iterable[QueueJob]) -> list[QueueJob]:
        """Those of the jobs that are not known to have taken any step."""
        jobs = list(jobs)
        query = {"campaign": self.name, "job_id": {"$in": [job.job_id for job in jobs]}}
        took = {claim["job_id"] for claim in self._find(CLAIMS, query, ["job_id"])}
        return [job for job in jobs if job.job_id not in took]

    def of_steps(self, fw_ids: Iterable[int]) -> dict[int, QueueJob]:
        """The job that took each step last, of those steps that a job took."""
        query = {"_id": {"$in": list(fw_ids)}, "job_id": {"$nin": [None, ""]}}
        claims = self._retry(lambda: list(self._database[CLAIMS].find(query, {"job_id": 1})))
        query = {"campaign": self.name, "job_id": {"$in": [one["job_id"] for one in claims]}}
        jobs = {one["job_id"]: QueueJob.of(one) for one in self._find(JOBS, query, FIELDS)}
        return {one["_id"]: jobs[one["job_id"]] for one in claims if one["job_id"] in jobs}

    def end(self, jobs: Iterable[QueueJob]) -> None:
        """Note that the queue does not know these jobs any more."""
        names = [self._id(job) for job in jobs]
        if names:
            query: dict[str, Any] = {"_id": {"$in": names}, "ended_at": None}
            self._update(JOBS, query, {"$set": {"ended_at": now()}})

    def _id(self, job: QueueJob) -> str:
        return f"{self.name}|{job.folder}|{job.job_id}"

    def folders(self, directory: str) -> set[str]:
        """Folders of all jobs that were ever submitted from a directory."""
        query = {"campaign": self.name, "directory": directory}
        return {job["folder"] for job in self._find(JOBS, query, ["folder"])}

    def lost(self, directory: str) -> set[str]:
        """Jobs from a directory that have ended and yet hold steps of the campaign."""
        query = {"campaign": self.name, "holder": {"$ne": ""}, "job_id": {"$nin": [None, ""]}}
        held = self._find(CLAIMS, query, ["job_id", "began_at"], sort=["began_at"])
        began = {claim["job_id"]: claim["began_at"] for claim in held}
        query = {"campaign": self.name, "directory": directory, "job_id": {"$in": sorted(began)}}
        ended = self._find(JOBS, {**query, "ended_at": {"$ne": None}}, ["job_id", "ended_at"])
        # What began later is another cluster's job, or one of a queue that was set up again.
        return {job["job_id"] for job in ended if job["ended_at"] >= began[job["job_id"]]}
