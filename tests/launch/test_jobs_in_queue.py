"""Keeping jobs in a queue that is away, or refuses: what is asked, submitted, said and given up."""

import re
from contextlib import closing
from pathlib import Path

import pytest

from hullscreen.database.claims import Claims
from hullscreen.database.queue_jobs import QueueJobs
from hullscreen.launch import cancelled_jobs, jobs_in_queue, queue_launch
from hullscreen.launch.campaign_news import CampaignNews
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.launch.cancelled_jobs import listed
from hullscreen.launch.jobs_in_queue import MAX_FRUITLESS, MAX_FUTILE, JobsInQueue
from hullscreen.launch.progress import LineBoard
from hullscreen.launch.queue_commands import QUEUES, QueueError
from hullscreen.launch.queue_files import roles_of, write_queue_files
from hullscreen.launch.queue_launch import _SilenceNote, _Watch
from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows.flows import submit_campaign
from hullscreen.workflows.tending import Tender

SETTINGS = """
[campaign]
name = "cu-pd"
elements = ["Cu", "Pd"]
[database]
uri = "{uri}"
name = "{name}"
[launch.relax]
jobs = 3
cores = 4
[launch.dft]
jobs = 2
"""
TAKES = "echo $(($(cat last 2>/dev/null || echo 100) + 1)) >last; cat last"
KNOWS = 'for job in $(cat {folder}/known); do echo "$job.head name ann 0 R batch"; done'
AWAY = "echo 'cannot connect to server head' >&2; exit 111"


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Function that puts programs into the place of PBS, and says which jobs it knows."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(known=(), **texts):
        (folder / "known").write_text(" ".join(known))
        counting = f"cd {folder}; {TAKES}"
        for name, text in {"qsub": counting, "qstat": KNOWS, "qdel": "exit 0", **texts}.items():
            (folder / name).write_text(f"#!/bin/sh\n{text.replace('{folder}', str(folder))}\n")
            (folder / name).chmod(0o755)

    put()
    return put


@pytest.fixture
def jobs(tmp_path, mongo, queue):
    """Jobs of a campaign directory; ``jobs.lines`` is what was said."""
    directory = tmp_path / "cu-pd"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(uri=mongo.uri, name=mongo.name))
    with open_session(directory) as session:
        folders = write_queue_files(directory / "queue", session.settings, mongo.uri, "pbs", "r")
        lines = []
        jobs = JobsInQueue(session, QUEUES["pbs"], folders, LineBoard(lines.append))
        jobs.lines, jobs.roles = lines, roles_of(session.settings.launch)
        yield jobs


def of_kind(jobs, category):
    return [job.job_id for job in jobs.alive if job.category == category]


def test_as_many_jobs_as_there_is_work_for_and_no_more_than_allowed(jobs, queue):
    # Five batches are too many for one job of four processes.
    states = {
        "relax": {"READY": 5, "WAITING": 9, "COMPLETED": 9},
        "dft": {"READY": 9},
    }
    jobs.keep(jobs.roles, states)
    assert (len(of_kind(jobs, "relax")), len(of_kind(jobs, "dft"))) == (2, 2)
    assert jobs.lines == [
        "submitted PBS job 101 for relax (1 of at most 3)",
        "submitted PBS job 102 for relax (2 of at most 3)",
        "submitted PBS job 103 for dft (1 of at most 2)",
        "submitted PBS job 104 for dft (2 of at most 2)",
    ]
    queue(known=["101", "102", "104"])
    assert jobs.ask()
    assert of_kind(jobs, "dft") == ["104"]
    jobs.keep(jobs.roles, states)
    jobs.keep(jobs.roles, states)
    assert of_kind(jobs, "dft") == ["104", "105"]
    jobs.keep(jobs.roles, {})
    assert len(jobs.alive) == 4
    assert listed(jobs.alive) == "jobs 101, 102, 104, 105"


def test_what_jobs_hold_is_work_for_them_and_what_others_hold_is_not(jobs, queue):
    database = jobs.session.connection.database
    claims = Claims(jobs.session.connection, "cu-pd")

    def hold(fw_id, job_id):
        spec = {"campaign": "cu-pd", "_category": "dft"}
        firework = {"fw_id": fw_id, "state": "RUNNING", "spec": spec, "launches": []}
        database.fireworks.insert_one(firework)
        claims.take(fw_id, category="dft", holder=f"of {job_id}", host="node", job_id=job_id)

    hold(1, "")
    hold(2, "7")
    jobs.keep(jobs.roles, {"dft": {"RUNNING": 2}})
    assert jobs.alive == []
    jobs.keep(jobs.roles, {"dft": {"READY": 1, "RUNNING": 2}})
    assert of_kind(jobs, "dft") == ["101"]
    hold(3, "101")
    jobs.keep(jobs.roles, {"dft": {"RUNNING": 3}})
    assert of_kind(jobs, "dft") == ["101"]
    # The one that is there has its hands full.
    jobs.keep(jobs.roles, {"dft": {"READY": 1, "RUNNING": 3}})
    assert of_kind(jobs, "dft") == ["101", "102"]


def test_a_queue_that_is_away_has_lost_nothing(jobs, queue):
    jobs.keep(jobs.roles, {"dft": {"READY": 1}})
    for _ in range(3):
        queue(qstat=AWAY)
        assert not jobs.ask()
        assert of_kind(jobs, "dft") == ["101"]
    assert jobs.lines[1:] == [
        "PBS does not answer (cannot connect to server head); it is asked again"
    ]
    queue(known=["101"])
    assert jobs.ask()
    assert of_kind(jobs, "dft") == ["101"]


def test_a_queue_that_cannot_be_asked_is_an_error_at_the_start(jobs, queue):
    queue(qstat="echo 'qstat: no such server' >&2; exit 1")
    with pytest.raises(QueueError, match="PBS cannot be asked for its jobs: no such server"):
        jobs.ask()


def test_a_limit_is_waited_for_while_jobs_are_there(jobs, queue, monkeypatch):
    jobs.keep(jobs.roles, {"dft": {"READY": 1}})
    refuses = "echo 'qsub: would exceed limit on jobs per user' >&2; exit 1"
    queue(known=["101"], qsub=refuses)
    for _ in range(3):
        jobs.keep(jobs.roles, {"dft": {"READY": 2}})
    (said,) = jobs.lines[1:]
    assert said.startswith("PBS did not take the job of ")
    assert said.endswith("/dft: would exceed limit on jobs per user; tried again in 60 s")
    monkeypatch.setattr(jobs_in_queue, "ASK_AGAIN_S", 0.0)
    jobs._not_before = 0.0
    queue(known=["101"])
    jobs.keep(jobs.roles, {"dft": {"READY": 2}})
    assert of_kind(jobs, "dft") == ["101", "102"]
    # Refused with none there, it would be refused for ever.
    queue(qsub=refuses)
    assert jobs.ask()
    with pytest.raises(QueueError, match="would exceed limit"):
        jobs.keep(jobs.roles, {"dft": {"READY": 2}})


def test_jobs_that_do_nothing_are_given_up_unless_something_gets_done(jobs, queue):
    claims = Claims(jobs.session.connection, "cu-pd")

    def one_more(n_completed):
        jobs.keep(jobs.roles, {"dft": {"READY": 1, "COMPLETED": n_completed}})
        # Each takes a step and cannot do it.
        (job,) = of_kind(jobs, "dft")
        claims.take(int(job), category="dft", holder="a|b", host="node", job_id=job)
        queue(known=[])
        assert jobs.ask()

    for number in range(3 * MAX_FUTILE):
        one_more(number)
    for _ in range(MAX_FUTILE):
        one_more(3 * MAX_FUTILE)
    with pytest.raises(
        CampaignError, match=r"ended 10 times in a row and no step was done.* wrote nothing; its s"
    ):
        one_more(3 * MAX_FUTILE)


def test_jobs_that_take_no_step_are_given_up_soon(jobs, queue):
    states = {"dft": {"READY": 1}, "relax": {"COMPLETED": 1}}

    def one_more():
        jobs.keep(jobs.roles, states)
        (job,) = jobs.alive
        folder = Path(job.folder)
        (folder / f"cu-pd-dft.o{job.job_id}").write_text("welcome\n")
        (folder / f"cu-pd-dft.e{job.job_id}").write_text("no module x\nsetup failed\n")
        queue(known=[])
        assert jobs.ask()

    # One that nobody needed has done nothing wrong.
    one_more()
    jobs.keep(jobs.roles, {})
    assert len(jobs.lines) == 1
    for _ in range(MAX_FRUITLESS):
        one_more()
    said = [line for line in jobs.lines if "did nothing" in line]
    assert len(said) == MAX_FRUITLESS - 1
    assert re.fullmatch(
        r"job 102 \(dft\) ended after \d+ s and did nothing; it wrote 'no module x; setup failed' "
        r"into .*/cu-pd-dft\.e102",
        said[0],
    )
    with pytest.raises(
        CampaignError, match=r"jobs for dft have ended 3 times in a row .* 104, wrote 'no module x"
    ):
        jobs.keep(jobs.roles, states)


def test_why_a_job_waits_is_said_once_and_kept(jobs, queue):
    jobs.queue = QUEUES["slurm"]
    queue(sbatch="echo Submitted batch job 54", squeue="echo '54|PENDING|PartitionTimeLimit'")
    jobs.keep(jobs.roles, {"train": {"READY": 1}})
    for _ in range(3):
        assert jobs.ask()
    assert jobs.lines[1:] == [
        "Slurm job 54 (train) waits: PartitionTimeLimit; lower walltime under [launch.train]"
    ]
    (job,) = jobs.alive
    assert (job.state, job.reason) == ("waiting", "PartitionTimeLimit")
    queue(squeue="echo '54|RUNNING|None'")
    for _ in range(2):
        assert jobs.ask()
    (job,) = jobs.alive
    assert (job.state, job.reason) == ("running", "")
    assert jobs.staying() == "job 54 stays in the queue and goes on"


def test_jobs_of_a_supervisor_that_was_killed_are_adopted_once(jobs, queue):
    jobs.keep(jobs.roles, {"dft": {"READY": 1}})
    stored = QueueJobs(jobs.session.connection, "cu-pd")
    jobs.session.connection.database.queue_jobs.delete_many({})
    queue(known=["101"])
    for _ in range(2):
        jobs.adopt()
        assert jobs.ask()
        assert of_kind(jobs, "dft") == ["101"]
    assert len(stored.in_queue(str(jobs.session.directory))) == 1
    jobs.keep(jobs.roles, {"dft": {"READY": 1}})
    assert len(jobs.alive) == 1


# At the end of a campaign

DELETES = 'echo "$@" >>{folder}/deleted; cp {folder}/left {folder}/known'


@pytest.fixture
def two_jobs(jobs, queue, tmp_path, monkeypatch):
    """Function that says how the queue answers of its two jobs, and what it is asked to delete."""
    monkeypatch.setattr(jobs_in_queue, "GRACE_S", 0.0)
    monkeypatch.setattr(cancelled_jobs, "POLL_S", 0.0)
    jobs.keep(jobs.roles, {"dft": {"READY": 2}})
    jobs.lines.clear()

    def answer(*, left="", **texts):
        queue(known=["101", "102"], **{"qdel": DELETES, **texts})
        (tmp_path / "bin" / "left").write_text(left)
        return tmp_path / "bin" / "deleted"

    return answer


def in_queue(jobs):
    stored = QueueJobs(jobs.session.connection, "cu-pd")
    return [job.job_id for job in stored.in_queue(str(jobs.session.directory))]


def test_jobs_that_wait_are_cancelled_at_once_and_those_that_run_may_end(
    jobs, two_jobs, monkeypatch
):
    monkeypatch.setattr(jobs_in_queue, "GRACE_S", 10.0)
    # The second ends by itself once the first is gone.
    states = "for job in $(cat {folder}/known); do echo $job name ann 0 $state batch; state=R; done"
    deleted = two_jobs(qstat=f"state=Q; {states}")
    jobs.cancel()
    assert deleted.read_text() == "101\n"
    assert jobs.lines == ["cancelled what was left in the queue: job 101"]
    assert in_queue(jobs) == []


def test_jobs_that_do_not_end_by_themselves_are_cancelled(jobs, two_jobs):
    deleted = two_jobs()
    jobs.cancel()
    assert deleted.read_text() == "101 102\n"
    assert jobs.lines == ["cancelled what was left in the queue: jobs 101, 102"]
    assert in_queue(jobs) == []


def test_a_queue_that_is_away_at_the_end_is_asked_again(jobs, two_jobs):
    # Nobody has asked it before, and what was submitted last could not be remembered.
    jobs.alive = []
    jobs.session.connection.database.queue_jobs.delete_one({"job_id": "102"})
    away = f"test -e {{folder}}/back || {{ touch {{folder}}/back; {AWAY}; }}; "
    deleted = two_jobs(qstat=away + KNOWS)
    jobs.cancel()
    assert deleted.read_text() == "101 102\n"
    assert in_queue(jobs) == []


def test_a_job_that_ended_meanwhile_keeps_no_other_in_the_queue(jobs, two_jobs):
    # Torque stops at the first that it does not know.
    refuses = "case $1 in 101) echo qdel: Unknown Job Id 101 >&2; echo 102 >{folder}/known; exit 1;"
    deleted = two_jobs(qdel=f"{refuses} esac; {DELETES}")
    jobs.cancel()
    assert deleted.read_text() == "102\n"
    assert jobs.lines == ["cancelled what was left in the queue: job 102"]


def test_jobs_that_stay_in_spite_of_all_are_an_error(jobs, two_jobs, monkeypatch):
    monkeypatch.setattr(cancelled_jobs, "PATIENCE_S", 0.0)
    two_jobs(qdel="echo qdel: Unauthorized Request 101.head >&2; exit 159")
    with pytest.raises(QueueError) as caught:
        jobs.cancel()
    assert str(caught.value) == (
        "jobs 101, 102 of this campaign stay in the queue, for PBS could not be made to cancel: "
        "Unauthorized Request 101.head; `qdel 101 102` does it once PBS answers"
    )
    assert in_queue(jobs) == ["101", "102"]
    # Said already, so not once more as the jobs that go on.
    assert jobs.alive == []


@pytest.mark.parametrize(
    ("cancelled", "sentence"),
    [(False, "1 step was defused"), (True, "was cancelled")],
)
def test_a_campaign_that_ends_without_a_hull_leaves_no_job(
    jobs, two_jobs, monkeypatch, cancelled, sentence
):
    monkeypatch.setattr(queue_launch, "PATIENCE_S", -1.0)
    session, board = jobs.session, jobs.board
    campaign, launchpad = prepare(session)
    submit_campaign(launchpad, campaign)
    for fw_id in launchpad.get_fw_ids():
        launchpad.defuse_fw(fw_id)
    session.connection.database.campaigns.update_one({}, {"$set": {"cancelled": cancelled}})
    watch = _Watch(
        session, campaign, launchpad, board, jobs, Tender(launchpad, campaign), _SilenceNote(board),
        CampaignNews(session.connection, session.directory, board),
    )  # fmt: skip
    deleted = two_jobs()
    with closing(launchpad.connection), pytest.raises(CampaignError, match=sentence):
        watch._look()
    assert deleted.read_text() == "101 102\n"
