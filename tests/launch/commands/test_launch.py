"""`hullscreen launch` without a real queue: what it shows, what it refuses, in which words."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hullscreen.launch.command_line import main
from hullscreen.launch.directory_lock import only_one
from hullscreen.potentials.errors import CampaignError

SETTINGS = """
[campaign]
name = "cu-pd"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 2
lattices = ["fcc"]
aflow = false
"""
PATIENCE_S = 120


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "cu-pd"
    path.mkdir()
    (path / "hullscreen.toml").write_text(SETTINGS)
    return path


@pytest.fixture
def no_queue(tmp_path, monkeypatch):
    """A PATH without any queue's programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))


def files_of(directory):
    return sorted(path.name for path in directory.rglob("*"))


def test_a_dry_run_shows_the_files_and_writes_nothing(directory, capsys, no_queue):
    address = directory / "address"
    address.write_text("mongodb://ann:s3cret@db.example.org/?tls=true\n")
    address.chmod(0o600)
    path = directory / "hullscreen.toml"
    path.write_text(
        f'{SETTINGS}[database]\nuri_file = "address"\n'
        '[launch]\nqueue = "slurm"\npartition = "batch"\n'
    )
    before = files_of(directory)
    assert main(["launch", str(directory), "--dry-run"]) == 0
    assert files_of(directory) == before
    shown = capsys.readouterr().out
    for category in ("relax", "train", "dft"):
        place = f"{directory}/queue/{category}"
        for name in ("my_launchpad.yaml", "my_fworker.yaml", "my_qadapter.yaml"):
            assert f"==> {place}/{name} <==" in shown
        assert f"worker {place} --processes 1 " in shown
        assert f'cd "{place}/launcher_TIME"' in shown
    assert shown.count("#SBATCH --partition=batch") == 3
    assert 'host: "mongodb://***@db.example.org/?tls=true"' in shown
    assert "s3cret" not in shown


def test_a_dry_run_of_a_campaign_with_a_server_of_its_own_starts_none(directory, capsys, no_queue):
    assert main(["launch", str(directory), "--queue", "pbs", "--dry-run"]) == 0
    assert "#PBS -N relax-cu-pd" in capsys.readouterr().out
    assert files_of(directory) == ["hullscreen.toml"]


@pytest.mark.parametrize(
    ("queue", "program", "title"),
    [("slurm", "sbatch", "Slurm"), ("pbs", "qsub", "PBS"), ("sge", "qsub", "SGE")],
)
def test_a_missing_queue_is_one_sentence(directory, capsys, no_queue, queue, program, title):
    assert main(["launch", str(directory), "--queue", queue]) == 6
    said = capsys.readouterr().err
    assert said.startswith(f"hullscreen: the program {program} of {title} is not on PATH: ")
    assert said.count("\n") == 1
    # Not even a server was started.
    assert files_of(directory) == ["hullscreen.toml"]


def test_no_queue_is_one_sentence(directory, capsys):
    assert main(["launch", str(directory)]) == 2
    said = capsys.readouterr().err
    assert '--queue slurm, pbs or sge, or queue = "slurm" under [launch]' in said
    assert said.count("\n") == 1


def test_run_and_launch_exclude_one_another(tmp_path):
    with (
        only_one(tmp_path, "launch"),
        pytest.raises(
            CampaignError,
            match=rf"`hullscreen launch` is already at work in .* \(process {os.getpid()}\)",
        ),
        only_one(tmp_path, "run"),
    ):
        pass
    # Released by the end of the block, or of the process.
    with only_one(tmp_path, "run"):
        pass


# A queue that takes jobs and begins them at once: a stand-in for PBS, which is not to be had here.
QSUB = """#!/bin/sh
number=$(($(cat {folder}/last 2>/dev/null || echo 100) + 1))
echo $number >{folder}/last
PBS_JOBID=$number.head setsid bash "$1" >$number.out 2>&1 </dev/null &
echo $! >{folder}/$number.pid
echo $number.head.example.org
"""
QSTAT = """#!/bin/sh
echo 'Job ID                    Name             User            Time Use S Queue'
echo '------------------------- ---------------- --------------- -------- - -----'
for file in {folder}/*.pid; do
    [ -e "$file" ] && kill -0 $(cat $file) 2>/dev/null || continue
    echo "$(basename $file .pid).head           relax-cu-pd      ann             00:00:01 R batch"
done
"""
QDEL = """#!/bin/sh
for job in "$@"; do kill -TERM -$(cat {folder}/${{job%%.*}}.pid); done
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Folder of a queue that behaves as PBS does."""
    folder = tmp_path / "pbs"
    folder.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT), ("qdel", QDEL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    yield folder
    for path in folder.glob("*.pid"):
        try:
            os.killpg(int(path.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.slow
def test_a_campaign_through_a_queue_like_pbs(directory, mongo, stand_in):
    path = directory / "hullscreen.toml"
    path.write_text(
        f"{SETTINGS}[potential]\nlevel_first = 4\nlevel_second = 6\ncutoff_angstrom = 4.5\n"
        f'[database]\nuri = "{mongo.uri}"\nname = "{mongo.name}"\n'
        "[launch]\nheartbeat_s = 0.5\n[launch.dft]\njobs = 1\n"
    )
    launch = [sys.executable, "-m", "hullscreen.launch", "launch", directory, "--queue", "pbs"]
    with subprocess.Popen(launch, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "submitted PBS job 101.head.example.org for train (1 of at most 1)" in said
    assert said.endswith(f"The hull is there: hullscreen hull {directory}\n")
    jobs = {job["job_id"].split(".")[0] for job in mongo.database.queue_jobs.find({})}
    claims = {claim["job_id"] for claim in mongo.database.claims.find({})}
    # Jobs are called differently by those who submit them and by themselves.
    assert claims <= {f"{number}.head" for number in jobs}
    assert mongo.database.campaigns.find_one({}).get("n_reclaimed", 0) == 0
    deadline = time.monotonic() + PATIENCE_S
    while any(Path(f"/proc/{p.read_text().strip()}/exe").exists() for p in stand_in.glob("*.pid")):
        assert time.monotonic() < deadline, "jobs outlive the campaign"
        time.sleep(0.1)
