"""What queues print, as their manuals and sites show it, and what is made of it."""

import os
import pwd
import subprocess
import sys
import threading
import time

import pytest

from hullscreen.launch.queue_commands import (
    PASSING,
    QUEUES,
    QueueError,
    _one_line,
    known_jobs,
    require_programs,
    submit,
    submitted_from,
)
from hullscreen.launch.queue_files import write_queue_files
from hullscreen.launch.settings import from_tables

SLURM = """\
54|PENDING|PartitionTimeLimit
55|PENDING|Priority
56|RUNNING|None
57|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1-3]
58|COMPLETING|None
"""
# Torque: finished jobs stay in the list for a while, in state C.
TORQUE = """\
Job ID                    Name             User            Time Use S Queue
------------------------- ---------------- --------------- -------- - -----
4711.head                  relax-cu-pd      ann             00:10:12 R batch
4712.head                  dft-cu-pd        ann                    0 Q batch
4713.head                  dft-cu-pd        ann             00:00:07 C batch
4714.head                  dft-cu-pd        bob             00:00:07 E batch
"""
# PBS Pro cuts long names of servers, and lists finished jobs with -x only.
PBS_PRO = """\
Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
12345.pbs-server* relax-cu-pd      ann               00:00:00 H workq
12346.pbs-server* dft-cu-pd        ann               00:00:01 F workq
"""
SGE = """\
job-ID     prior   name       user         state submit/start at     queue       slots ja-task-ID
-------------------------------------------------------------------------------------------------
     44275 0.55500 relax-cu-p ann          r     11/21/2026 04:00:00 all.q@node1     8
     44276 0.00000 dft-cu-pd  ann          qw    11/21/2026 04:00:02                32
"""


@pytest.mark.parametrize(
    ("queue", "text", "numbers"),
    [
        ("slurm", "17\n18\n", ["17", "18"]),
        ("slurm", "", []),
        ("pbs", TORQUE, ["4711", "4712", "4714"]),
        ("pbs", PBS_PRO, ["12345"]),
        ("sge", SGE, ["44275", "44276"]),
    ],
)
def test_jobs_that_wait_or_run_are_found(queue, text, numbers):
    found = QUEUES[queue].listed.finditer(text)
    assert [one["number"] for one in found] == numbers


@pytest.mark.parametrize(
    ("queue", "program", "text", "expected"),
    [
        (
            "slurm",
            "squeue",
            SLURM,
            {
                "54": ("waiting", "PartitionTimeLimit"), "55": ("waiting", ""),
                "56": ("running", ""), "58": ("running", ""),
                "57": ("waiting", "ReqNodeNotAvail, UnavailableNodes:n[1-3]"),
            },
        ),
        (
            "pbs", "qstat", TORQUE,
            {"4711": ("running", ""), "4712": ("waiting", ""), "4714": ("running", "")},
        ),
        ("pbs", "qstat", PBS_PRO, {"12345": ("waiting", "it is held")}),
        ("sge", "qstat", SGE, {"44275": ("running", ""), "44276": ("waiting", "")}),
        (
            "sge", "qstat", SGE.replace(" qw ", "Eqw "),
            {
                "44275": ("running", ""),
                "44276": ("waiting", "it cannot begin, as `qstat -explain E` tells"),
            },
        ),
    ],
)  # fmt: skip
def test_why_jobs_wait(programs, queue, program, text, expected):
    programs(**{program: f"cat <<'END'\n{text}END"})
    found = known_jobs(QUEUES[queue])
    assert {number: (job.state, job.reason) for number, job in found.items()} == expected


@pytest.mark.parametrize(
    ("queue", "text", "number"),
    [
        ("slurm", "Submitted batch job 42 on cluster big\n", "42"),
        ("pbs", "4711.head.example.org\n", "4711"),
        ("pbs", "Welcome to the cluster\n4711.head\n", "4711"),
        ("sge", 'Your job 44275 ("relax-cu-pd") has been submitted\n', "44275"),
    ],
)
def test_the_number_of_a_new_job_is_found(queue, text, number):
    assert QUEUES[queue].submitted.search(text)[1] == number


@pytest.mark.parametrize(
    ("words", "passing"),
    [
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", True),
        ("Batch job submission failed: Socket timed out on send/recv operation", True),
        ("pbs_iff: cannot connect to head:15001 - fatal error, errno=111", True),
        ("Batch job submission failed: Invalid partition name specified", False),
        ("Batch job submission failed: Invalid account or account/partition combination", False),
        ("qsub: Unknown queue", False),
    ],
)
def test_queues_that_are_away_are_told_from_wrong_jobs(words, passing):
    assert (PASSING.search(words) is not None) == passing


def test_a_program_is_quoted_in_one_line():
    text = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job failed.\n\n"
    assert _one_line(text) == "invalid partition specified: x; Batch job failed"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Function that puts programs of a queue on PATH, and nothing else but a shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in [word for queue in QUEUES.values() for word in (queue.submit[0], queue.ask[0])]:
        (folder / name).write_text("#!/bin/sh\nexit 99\n")

    def put(**texts):
        for name, text in texts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)

    return put


@pytest.fixture
def folder(tmp_path):
    settings = from_tables({"campaign": {"elements": ["Cu", "Pd"]}})
    return write_queue_files(tmp_path / "q", settings, "mongodb://host", "pbs", "run-1")["relax"]


def test_a_missing_program_is_named(programs):
    programs(qsub="exit 0", qstat="exit 0")
    with pytest.raises(QueueError, match="the program qdel of PBS is not on PATH") as caught:
        require_programs(QUEUES["pbs"])
    assert caught.value.exit_code == 6


def test_a_job_is_submitted_from_a_folder_of_its_own(programs, folder):
    programs(qsub='echo "$1" > called; echo 4711.head')
    number, own = submit(QUEUES["pbs"], folder)
    assert number == "4711"
    assert own.parent == folder
    assert (own / "called").read_text() == "FW_submit.script\n"
    assert f'cd "{own}"' in (own / "FW_submit.script").read_text()


def test_a_submission_outlives_whoever_made_it(programs, folder, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    # As a queue that takes its time; it complains, and nobody listens any more.
    programs(
        qsub=f"echo begun >began; while [ -e {gate} ]; do sleep 0.05; done; "
        "echo words >&2; echo words >&2; echo 4711.head"
    )
    script = (
        "import pathlib, sys\n"
        "from hullscreen.launch.queue_commands import QUEUES, submit\n"
        "submit(QUEUES['pbs'], pathlib.Path(sys.argv[1]))\n"
    )
    own_sources = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", script, folder], env={**os.environ, "PYTHONPATH": own_sources}
    ) as process:
        deadline = time.monotonic() + 60
        while not list(folder.glob("launcher_*/began")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    opener = threading.Timer(0.3, gate.unlink)
    opener.start()
    # Waits for the answer.
    found = list(submitted_from(QUEUES["pbs"], folder, remembered=()))
    opener.join()
    (own,) = folder.glob("launcher_*")
    assert found == [("4711", own)]
    assert list(submitted_from(QUEUES["pbs"], folder, remembered={str(own)})) == []


def test_a_refused_job_leaves_nothing_and_says_why(programs, folder):
    programs(qsub="echo 'qsub: Unknown queue.' >&2; exit 170")
    with pytest.raises(QueueError, match=r"PBS did not take the job of .*relax: Unknown queue$"):
        submit(QUEUES["pbs"], folder)
    assert not list(folder.glob("launcher_*"))


def test_the_address_of_the_database_does_not_go_along(programs, folder, monkeypatch):
    monkeypatch.setenv("HULLSCREEN_DB_URI", "mongodb://ann:s3cret@host")
    programs(qsub="env > seen; echo 4711.head")
    _, own = submit(QUEUES["pbs"], folder)
    assert "s3cret" not in (own / "seen").read_text()


def test_jobs_are_those_of_whoever_asks(programs, monkeypatch, tmp_path):
    for name in ("LOGNAME", "USER"):
        monkeypatch.setenv(name, "somebody-else")
    programs(squeue=f'echo "$@" > {tmp_path}/asked; echo 7')
    assert set(known_jobs(QUEUES["slurm"])) == {"7"}
    me = pwd.getpwuid(os.getuid()).pw_name
    assert (tmp_path / "asked").read_text().split()[-1] == f"--user={me}"


def test_a_queue_that_is_away_is_not_an_empty_one(programs):
    programs(qstat="echo 'qstat: cannot connect to server head' >&2; exit 111")
    with pytest.raises(QueueError, match="cannot connect to server head") as caught:
        known_jobs(QUEUES["pbs"])
    assert caught.value.passing
