"""`hullscreen launch` without a real queue: what it shows, what it refuses, in which words."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pymongo
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
    scripts = capsys.readouterr().out
    assert scripts.count("#SBATCH --partition=batch") == scripts.count("==> ") == 3
    assert f"\n{directory}/queue/train/my_fworker.yaml\n" in scripts
    assert main(["launch", str(directory), "--dry-run", "--verbose"]) == 0
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


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("mongo://w:my s3cret@host/", 2),
        ('"mongodb://w:my s3cret@host/"', 2),
        ("uri = mongodb://w:my s3cret@host/", 2),
        # Whether the server takes it is not asked.
        ("mongodb://w:my s3cret@host/", 0),
    ],
)
def test_a_dry_run_shows_nothing_of_a_wrong_address(directory, capsys, no_queue, line, code):
    address = directory / "address"
    address.write_text(f"{line}\n")
    address.chmod(0o600)
    path = directory / "hullscreen.toml"
    path.write_text(f'{SETTINGS}[database]\nuri_file = "address"\n')
    assert main(["launch", str(directory), "--queue", "slurm", "--dry-run", "--verbose"]) == code
    shown = capsys.readouterr()
    assert "s3cret" not in shown.out + shown.err
    assert "***" in shown.out + shown.err
    assert shown.err.count("\n") == (code != 0)


def test_a_dry_run_of_a_campaign_with_a_server_of_its_own_starts_none(directory, capsys, no_queue):
    assert main(["launch", str(directory), "--queue", "pbs", "--dry-run"]) == 0
    assert "#PBS -N cu-pd-relax" in capsys.readouterr().out
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


def test_a_server_of_its_own_is_refused_unless_all_is_on_one_node(
    directory, capsys, tmp_path, monkeypatch
):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert main(["launch", str(directory), "--queue", "slurm"]) == 2
    said = capsys.readouterr().err
    assert "jobs on other nodes cannot reach the campaign's own MongoDB server" in said
    assert "--single-node" in said
    assert said.count("\n") == 1
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
# As long as there is a file "slow" beside it, it does not say that it has taken a job.
QSUB = """#!/bin/sh
number=$(($(cat {folder}/last 2>/dev/null || echo 100) + 1))
echo $number >{folder}/last
PBS_JOBID=$number.head setsid bash "$1" >$number.out 2>&1 </dev/null &
echo $! >{folder}/$number.pid
while [ -e {folder}/slow ]; do sleep 0.05; done
echo $number.head.example.org
"""
QSTAT = """#!/bin/sh
echo 'Job ID                    Name             User            Time Use S Queue'
echo '------------------------- ---------------- --------------- -------- - -----'
for file in {folder}/*.pid; do
    [ -e "$file" ] && [ -e /proc/$(cat $file)/exe ] || continue
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


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_campaign_through_a_queue_like_pbs(directory, mongo, stand_in):
    path = directory / "hullscreen.toml"
    path.write_text(
        f"{SETTINGS}[potential]\nlevel_first = 4\nlevel_second = 6\ncutoff_angstrom = 4.5\n"
        f'[database]\nuri = "{mongo.uri}"\nname = "{mongo.name}"\n'
        "[launch]\nheartbeat_s = 0.5\n[launch.dft]\njobs = 1\n"
    )
    launch = [sys.executable, "-m", "hullscreen.launch", "launch", directory, "--queue", "pbs"]
    # Killed while the queue takes its first job, it cannot remember that job.
    slow = stand_in / "slow"
    slow.touch()
    with subprocess.Popen(launch, stderr=subprocess.DEVNULL) as process:
        wait_for((stand_in / "101.pid").exists, "the first job")
        process.kill()
    assert mongo.database.queue_jobs.find_one() is None
    slow.unlink()
    with subprocess.Popen(launch, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert "submitted PBS job 102 for dft (1 of at most 1)" in said
    assert said.endswith(f"The hull is there: hullscreen hull {directory}\n")
    jobs = {job["job_id"]: job["category"] for job in mongo.database.queue_jobs.find({})}
    # The one that was killed has not been followed by a second one of its kind.
    assert list(jobs.values()).count("train") == 1
    assert jobs["101"] == "train"
    # The queue calls its jobs differently than they call themselves.
    assert {claim["job_id"] for claim in mongo.database.claims.find({})} <= set(jobs)
    assert mongo.database.campaigns.find_one({}).get("n_reclaimed", 0) == 0
    processes = [Path(f"/proc/{path.read_text().strip()}/exe") for path in stand_in.glob("*.pid")]
    wait_for(lambda: not any(path.exists() for path in processes), "the jobs to end")


# Databases that are not as the settings say: one sentence, and no job


def refusal(directory, capsys, *, mode=0o600):
    """How a launch ends, its exit code and sentence; no job must be submitted."""
    address = directory / "address"
    if address.exists():
        address.chmod(mode)
    code = main(["launch", str(directory), "--queue", "pbs"])
    said = capsys.readouterr().err
    assert said.startswith("hullscreen: ")
    assert said.count("\n") == 1
    assert "s3cret" not in said
    assert not (directory / "queue").exists()
    return code, said


@pytest.fixture
def with_address(directory, stand_in):
    """Function that gives the campaign a file with an address, and a database."""

    def put(uri, name="hullscreen"):
        (directory / "address").write_text(f"{uri}\n")
        path = directory / "hullscreen.toml"
        path.write_text(f'{SETTINGS}[database]\nuri_file = "address"\nname = "{name}"\n')
        return directory

    return put


def test_a_wrong_password_is_one_sentence(with_address, server_with_users, capsys):
    directory = with_address(server_with_users.uri("admin:s3cret"))
    code, said = refusal(directory, capsys)
    assert code == 5
    assert "refused the login: check user, password and authSource in the URI" in said


def test_a_wrong_database_is_one_sentence(with_address, server_with_users, admin_uri, capsys):
    with pymongo.MongoClient(admin_uri) as client:
        client["right"].command("createUser", "bea", pwd="s3cret", roles=["readWrite"])  # noqa: S106
        uri = server_with_users.uri("bea:s3cret", authSource="right")
        code, said = refusal(with_address(uri, "wrong"), capsys)
        client["right"].command("dropUser", "bea")
    assert code == 5
    assert "in the database 'wrong' on the MongoDB server at localhost:" in said
    assert "or correct [database] name" in said


@pytest.mark.slow
def test_no_tls_where_it_is_asked_for_is_one_sentence(with_address, server_with_tls, capsys):
    code, said = refusal(with_address(server_with_tls.uri("ann:s3cret")), capsys)
    assert code == 5
    assert "asks for TLS: add tls=true to the URI" in said


def test_an_address_that_others_may_read_is_one_sentence(with_address, server_with_users, capsys):
    directory = with_address(server_with_users.uri("admin:s3cret"))
    code, said = refusal(directory, capsys, mode=0o644)
    assert code == 2
    assert f"so others may read the password: run `chmod 600 {directory}/address`" in said
