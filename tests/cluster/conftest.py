import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("slurm")
# A loaded machine takes seconds to start three servers.
PATIENCE_S = 120


@dataclass(frozen=True)
class Slurm:
    """A running Slurm of one node; its commands are those on PATH."""

    directory: Path
    environment: dict

    def __call__(self, program, *words):
        """What a command of Slurm prints."""
        done = subprocess.run(
            [program, *map(str, words)], env={**os.environ, **self.environment},
            capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        return done.stdout

    def jobs(self):
        """State of each job that waits or runs, by its number."""
        return dict(line.split() for line in self("squeue", "-h", "-o", "%A %T").splitlines())


def _call(action, directory):
    return subprocess.run(
        [sys.executable, SCRIPT, action, directory],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
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
