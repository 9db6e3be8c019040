"""A worker with nothing of the campaign but a folder of launch files, from the wheel."""

import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.launch.queue_files import write_queue_files
from hullscreen.workflows.flows import submit_campaign
from hullscreen.workflows.results import final_hull

ROOT = Path(__file__).parents[2]
# A wheel is built, and kernels may have to be compiled.
PATIENCE_S = 900
SETTINGS = """
[campaign]
name = "elsewhere"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 2
lattices = ["fcc"]
aflow = false
[potential]
level_first = 4
level_second = 6
cutoff_angstrom = 4.5
[database]
uri = "{uri}"
name = "{name}"
# One process compiles all kernels, then.
[launch.train]
jobs = 0
"""


@pytest.fixture(scope="module")
def other_python(tmp_path_factory):
    """Python of another environment, in which the wheel of this tree is installed."""
    scratch = tmp_path_factory.mktemp("node")
    # A copy, because setuptools builds inside the tree, where old files would join the wheel.
    leave_out = shutil.ignore_patterns(".*", "build", "dist", "demo-*", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, scratch / "source", ignore=leave_out)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    call([*pip, "wheel", "--no-deps", "--wheel-dir", scratch, scratch / "source"], cwd=scratch)
    (wheel,) = scratch.glob("hullscreen-*.whl")
    call([sys.executable, "-m", "venv", "--without-pip", scratch / "venv"], cwd=scratch)
    python = scratch / "venv" / "bin" / "python"
    call([*pip, "--python", python, "install", "--no-deps", wheel], cwd=scratch)
    # What the wheel requires is lent by the environment of the tests.
    (site,) = (scratch / "venv" / "lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    return python


def call(command, *, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment,
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.slow
def test_launch_files_are_enough_for_a_worker(mongo, tmp_path, other_python):
    directory, away = tmp_path / "campaign", tmp_path / "away"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS.format(uri=mongo.uri, name=mongo.name))
    with open_session(directory) as session:
        campaign, launchpad = prepare(session)
        with closing(launchpad.connection):
            submit_campaign(launchpad, campaign)
        uri = session.connection.uri
        folders = write_queue_files(directory / "queue", session.settings, uri, "slurm", "run-1")
    away.mkdir()
    for category, folder in folders.items():
        shutil.copytree(folder, away / category)
    # The file system of the others is not to be seen there.
    shutil.rmtree(directory)
    where = call([other_python, "-c", "import hullscreen.launch as l; print(l.__file__)"], cwd=away)
    assert where.startswith(str(other_python.parents[1]))
    work = [other_python, "-m", "hullscreen.launch", "worker"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    workers = [
        subprocess.Popen([*work, away / category], cwd=away, env=environment)
        for category in folders
    ]
    try:
        assert [worker.wait(timeout=PATIENCE_S) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert final_hull(CampaignStore(mongo, "elsewhere")).finished
    assert not directory.exists()
