"""What is remembered of jobs in a queue, and which of those that have ended still hold steps."""

import pytest

from hullscreen.database.claims import Claims
from hullscreen.database.queue_jobs import QueueJobs

HERE, ELSEWHERE = "/here/cu-pd", "/elsewhere/cu-pd"


@pytest.fixture
def jobs(mongo):
    return QueueJobs(mongo, "cu-pd")


@pytest.fixture
def take(mongo):
    """Function: a job's worker takes a step."""
    claims = Claims(mongo, "cu-pd")
    return lambda fw_id, job_id: claims.take(
        fw_id, category="dft", holder=f"worker of {job_id}", host="node", job_id=job_id
    )


def test_jobs_are_those_of_one_directory_and_campaign(jobs, mongo):
    jobs.add(HERE, "41", "dft", f"{HERE}/one")
    jobs.add(HERE, "42", "relax", f"{HERE}/two")
    jobs.add(ELSEWHERE, "42", "dft", f"{ELSEWHERE}/one")
    QueueJobs(mongo, "al-ni").add(HERE, "43", "dft", f"{HERE}/three")
    assert [(job.job_id, job.category) for job in jobs.in_queue(HERE)] == [
        ("41", "dft"), ("42", "relax")
    ]  # fmt: skip
    jobs.end(jobs.in_queue(HERE)[:1])
    assert [job.job_id for job in jobs.in_queue(HERE)] == ["42"]
    assert [job.job_id for job in jobs.in_queue(ELSEWHERE)] == ["42"]
    # Folders are remembered for good.
    assert jobs.folders(HERE) == {f"{HERE}/one", f"{HERE}/two"}


def test_only_our_jobs_that_have_ended_are_lost(jobs, take, mongo):
    for number in ("41", "42", "43"):
        jobs.add(HERE, number, "dft", f"{HERE}/{number}")
    jobs.add(ELSEWHERE, "51", "dft", f"{ELSEWHERE}/51")
    tokens = {number: take(int(number), number) for number in ("41", "42", "51", "61")}
    assert jobs.lost(HERE) == set()
    by_number = {job.job_id: job for job in jobs.in_queue(HERE)}
    jobs.end([by_number["41"], by_number["43"]])
    jobs.end(jobs.in_queue(ELSEWHERE))
    # 43 held nothing, and nobody knows 61 here.
    assert jobs.lost(HERE) == {"41"}
    assert jobs.lost(ELSEWHERE) == {"51"}
    Claims(mongo, "cu-pd").release(41, tokens["41"])
    assert jobs.lost(HERE) == set()


def test_a_number_that_a_queue_gives_once_more_is_another_job(jobs, take):
    jobs.add(HERE, "41", "dft", f"{HERE}/old")
    jobs.end(jobs.in_queue(HERE))
    jobs.add(HERE, "41", "dft", f"{HERE}/new")
    take(7, "41")
    assert jobs.lost(HERE) == set()
    jobs.end(jobs.in_queue(HERE))
    assert jobs.lost(HERE) == {"41"}
