import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "slurm"
CALCULATORS = HERE.parent / "launch" / "calculators"
# A loaded machine takes seconds to start three servers.
START_PATIENCE_S = 120
# Kernels may have to be compiled, on a machine that has other things to do.
PATIENCE_S = 600


@dataclass(frozen=True)
class Slurm:
    """A running Slurm of one node; its commands are those on PATH."""

    directory: Path
    environment: dict

    def __call__(self, program, *words):
        """What a command of Slurm prints."""
        done = subprocess.run(
            [program, *map(str, words)], env={**os.environ, **self.environment},
            capture_output=True, text=True, check=True, timeout=START_PATIENCE_S,
        )  # fmt: skip
        return done.stdout

    def jobs(self):
        """Name of each job that waits or runs, by its number."""
        return dict(line.split() for line in self("squeue", "-h", "-o", "%A %j").splitlines())


def _call(action, directory):
    return subprocess.run(
        [sys.executable, SCRIPT, action, directory],
        capture_output=True, text=True, check=False, timeout=START_PATIENCE_S,
    )  # fmt: skip


@pytest.fixture(scope="session")
def slurm_server(tmp_path_factory):
    """A Slurm of this machine for all tests of a process."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for program in ("slurmctld", "munged"):
        if shutil.which(program, path=path) is None:
            pytest.skip(f"{program} is not there: apt-get install slurm-wlm munge")
    directory = tmp_path_factory.mktemp("slurm")
    started = _call("start", directory)
    if "does not resolve to 127.0.0.1" in started.stderr:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, f"{started.stderr}\n{_logs(directory)}"
    yield Slurm(directory, {"SLURM_CONF": str(directory / "slurm.conf")})
    stopped = _call("stop", directory)
    assert stopped.returncode == 0, stopped.stderr


@pytest.fixture
def slurm(slurm_server, monkeypatch):
    """The Slurm of this machine, empty; ``sbatch`` and its like find it."""
    for name, value in slurm_server.environment.items():
        monkeypatch.setenv(name, value)
    yield slurm_server
    jobs = slurm_server.jobs()
    if jobs:
        slurm_server("scancel", *jobs)


def _logs(directory):
    return "\n".join(
        f"{path.name}: {path.read_text()[-2000:]}" for path in sorted((directory / "log").iterdir())
    )


# Campaigns that go through it

SETTINGS = """
[campaign]
name = "queued"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 3
lattices = ["fcc"]
aflow = false
[potential]
level_first = 4
level_second = 6
cutoff_angstrom = 4.5
[learning]
first_wave = 5
[dft]
calculator = "{calculator}"
structures_per_job = 2
[database]
{database}
[launch]
heartbeat_s = {heartbeat_s}
idle_s = {idle_s}
partition = "{partition}"
setup = {setup}
[launch.relax]
jobs = 1
cores = 2
[launch.dft]
jobs = 2
walltime = "{walltime}"
"""
EMT = "ase.calculators.emt:EMT"
SLOW_EMT = "slow_emt:SlowEMT"


def settings_text(database, **changes):
    """The settings of a campaign; DFT of most waits at the gate."""
    values = {
        "calculator": SLOW_EMT, "partition": "", "setup": [], "idle_s": 300.0,
        "heartbeat_s": 0.5, "walltime": "00:10:00", **changes,
    }  # fmt: skip
    return SETTINGS.format(database=database, **values)


class Gate:
    """The file while which `SlowEMT` waits; each calculation adds its process to it."""

    def __init__(self, path):
        self.path = path
        self.deafness = path.with_suffix(".deaf")

    def close(self):
        self.path.touch()

    def open(self):
        self.path.unlink(missing_ok=True)

    def waiting(self):
        """Processes that have come to it, in their order."""
        return [int(line) for line in self.path.read_text().split()]

    @contextlib.contextmanager
    def deaf(self):
        """Who comes meanwhile does not listen to anybody who asks it to end."""
        self.deafness.touch()
        yield
        self.deafness.unlink()


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """Closed, it keeps DFT from ending."""
    paths = [str(CALCULATORS), *[path for path in sys.path if path]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    gate = Gate(tmp_path / "gate")
    monkeypatch.setenv("SLOW_EMT_WHILE", str(gate.path))
    yield gate
    gate.open()


@pytest.fixture
def make_campaign(tmp_path, gate):
    """Function that writes a campaign directory whose database is at an address."""

    def make(database, **changes):
        directory = tmp_path / "campaign"
        directory.mkdir()
        (directory / "hullscreen.toml").write_text(settings_text(database, **changes))
        return directory

    return make


@pytest.fixture
def campaign(make_campaign, mongo):
    """Function that writes a campaign in the test's own database."""

    def make(**changes):
        return make_campaign(f'uri = "{mongo.uri}"\nname = "{mongo.name}"', **changes)

    return make


def hullscreen(*words):
    return [sys.executable, "-m", "hullscreen.launch", *map(str, words)]


@pytest.fixture
def call():
    """Function that runs `hullscreen` to its end."""

    def run(*words):
        return subprocess.run(
            hullscreen(*words), capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    return run


class Launched:
    """A `hullscreen launch` that is under way."""

    def __init__(self, directory, path):
        self.path = path
        with path.open("wb") as stream:
            command = hullscreen("launch", directory, "--queue", "slurm")
            self.process = subprocess.Popen(command, stderr=stream)

    @property
    def said(self):
        return self.path.read_text()

    def end(self, number, status):
        """End it with a signal; what it has said."""
        self.process.send_signal(number)
        assert self.process.wait(timeout=PATIENCE_S) == status, self.said
        return self.said

    def finish(self, status=0):
        """Wait for it to end; what it has said."""
        assert self.process.wait(timeout=PATIENCE_S) == status, self.said
        return self.said


@pytest.fixture
def launch(tmp_path):
    """Function that starts `hullscreen launch` in a campaign directory."""
    started = []

    def start(directory):
        started.append(Launched(directory, tmp_path / f"said-{len(started)}.txt"))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def wait_for():
    """Function that waits until something is true, and returns it."""

    def wait(condition, patience_s=PATIENCE_S):
        deadline = time.monotonic() + patience_s
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.05)
        return value

    return wait


@pytest.fixture
def job_of():
    """Function: the Slurm job that a process runs in."""

    def find(process):
        variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        named = [v.partition(b"=")[2] for v in variables if v.startswith(b"SLURM_JOB_ID=")]
        return named[0].decode() if named else ""

    return find


@pytest.fixture(scope="session")
def hull_of_run(mongo_server, tmp_path_factory):
    """The hull that `hullscreen run` finds for the same settings."""
    directory = tmp_path_factory.mktemp("run")
    text = settings_text(
        f'uri = "{mongo_server.uri}"\nname = "run_{directory.name}"', calculator=EMT
    )
    (directory / "hullscreen.toml").write_text(text)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run(hullscreen("run", directory), env=environment, check=True, timeout=PATIENCE_S)
    return _hull(directory, environment)


@pytest.fixture
def assert_hull_of_run(hull_of_run):
    """Function that compares the hull of a campaign directory."""

    def compare(directory):
        ours = _hull(directory, os.environ)
        assert ours["finished"]
        assert ours["stable"]
        for mine, theirs in zip(ours["stable"], hull_of_run["stable"], strict=True):
            assert mine["formula_pretty"] == theirs["formula_pretty"]
            # Energies come from one code at one geometry: equal to rounding.
            assert mine["energy_per_atom"] == pytest.approx(theirs["energy_per_atom"], abs=1e-9)

    return compare


def _hull(directory, environment):
    done = subprocess.run(
        hullscreen("hull", directory, "--json"), env=environment,
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
