"""The wheel, installed in an empty environment: on a laptop, and on another node of a cluster.

Its kernels are compiled once, by `hullscreen warm-cache`; the tests use them in their order.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.launch.campaign_session import open_session
from hullscreen.launch.campaign_start import prepare
from hullscreen.launch.queue_files import write_queue_files
from hullscreen.workflows.flows import submit_campaign
from hullscreen.workflows.results import final_hull
from hullscreen.workflows.warm_up import PARTS

ROOT = Path(__file__).parents[1]

# Downloads and the compilation of kernels from an empty cache come on top of the campaign.
TIME_LIMIT_S = 900
EVALUATION = """
import numpy as np
from ase.build import bulk
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import from_atoms

potential = untrained(16, ("Cu", "Pd"), cutoff=5.0, min_distance=2.0)
found = potential.evaluate(from_atoms([bulk("Cu", a=3.7)], ("Cu", "Pd")), "structures")
assert np.isfinite(found.energies).all()
"""
LAUNCHED = """
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
[launch.train]
jobs = 0
"""

pytestmark = pytest.mark.slow


def environment(scratch):
    """That of a process whose caches lie in ``scratch``."""
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "NUMBA_CACHE_DIR": str(scratch / "numba"),
        "HULLSCREEN_CACHE_DIR": str(scratch / "bases"),
    }


def complete(command, *, cwd, scratch):
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment(scratch),
        capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def call(command, *, cwd, scratch):
    return complete(command, cwd=cwd, scratch=scratch).stdout


def cached_files(scratch):
    return {
        path: path.stat().st_mtime_ns
        for name in ("numba", "bases")
        for path in (scratch / name).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def wheel(scratch):
    # A copy, because setuptools builds inside the tree, where old files would join the wheel.
    source = scratch / "source"
    leave_out = shutil.ignore_patterns(".*", "build", "dist", "demo-*", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=leave_out)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    call([*pip, "wheel", "--no-deps", "--wheel-dir", scratch, source], cwd=scratch, scratch=scratch)
    (found,) = scratch.glob("hullscreen-*.whl")
    return found


@pytest.fixture(scope="module")
def hullscreen(scratch, wheel):
    """The console command of an environment that holds the wheel and what it requires."""
    venv = scratch / "venv"
    call([sys.executable, "-m", "venv", venv], cwd=scratch, scratch=scratch)
    call(
        [venv / "bin" / "python", "-m", "pip", "install", "--quiet", wheel],
        cwd=scratch,
        scratch=scratch,
    )
    return venv / "bin" / "hullscreen"


def test_the_wheel_holds_the_folders_and_nothing_else(wheel):
    from zipfile import ZipFile

    names = ZipFile(wheel).namelist()
    sources = {
        f"hullscreen/{path.relative_to(ROOT).as_posix()}"
        for folder in ("potentials", "dft_adapters", "database", "workflows", "launch")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".toml", ".json", ".yaml", ".js", ".css"}
        or path.name in {"py.typed", "README.md"}
    }
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_nothing_is_left_to_compile_after_the_cache_was_warmed(hullscreen, scratch):
    warm = [hullscreen, "warm-cache", "--levels", "8", "16"]
    done = complete([*warm, "--json"], cwd=scratch, scratch=scratch)
    report = json.loads(done.stdout)
    assert report["prepared"] == [*PARTS, "basis of level 8", "basis of level 16"]
    assert report["compiled"] > 0
    at_work = [line for line in done.stderr.splitlines() if line.startswith("at work: ")]
    assert at_work == [f"at work: {name}" for name in (*PARTS, "bases")]
    before = cached_files(scratch)
    assert any(path.suffix == ".nbc" for path in before)
    assert any("16" in path.name and path.parent.name == "bases" for path in before)
    call([hullscreen.parent / "python", "-c", EVALUATION], cwd=scratch, scratch=scratch)
    assert cached_files(scratch) == before
    # Every part again: nothing is compiled for a second time either.
    again = call(warm, cwd=scratch, scratch=scratch)
    assert again.startswith("nothing to compile: all was prepared")
    assert cached_files(scratch) == before


def test_a_campaign_from_another_directory(hullscreen, scratch):
    away = scratch / "away"
    away.mkdir()

    def run(*words):
        return call([hullscreen, *words], cwd=away, scratch=scratch)

    assert "Usage: hullscreen" in run("--help")
    assert run("--version").startswith("hullscreen 0.")
    run("init", "small", "--elements", "Cu", "Au", "--lattices", "fcc", "--max-atoms", "3")
    settings = away / "small" / "hullscreen.toml"
    settings.write_text(settings.read_text().replace("\naflow = true", "\naflow = false"))
    run("run", "small")
    document = json.loads(run("hull", "small", "--json"))

    assert document["chemsys"] == "Au-Cu"
    stable = {entry["formula_pretty"]: entry for entry in document["stable"]}
    assert {"Cu", "Au"} <= set(stable)
    for formula, entry in stable.items():
        assert entry["nsites"] >= 1
        if formula in {"Cu", "Au"}:
            # Elements are their own reference; DFT energies are stored, so nothing is rounded.
            assert entry["formation_energy_per_atom"] == pytest.approx(0, abs=1e-9)
        else:
            assert entry["formation_energy_per_atom"] < 0
    # EMT's energy of fcc copper at its best lattice constant, 3.590 Å. A stress of 0.1 GPa left by
    # the relaxation is worth 3e-6 eV/atom; the tolerance is ten times that.
    assert stable["Cu"]["energy_per_atom"] == pytest.approx(-0.007036, abs=4e-5)


def test_launch_files_are_enough_for_a_worker_on_another_node(mongo, tmp_path, hullscreen, scratch):
    directory, away = tmp_path / "campaign", tmp_path / "away"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(LAUNCHED.format(uri=mongo.uri, name=mongo.name))
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
    python = hullscreen.parent / "python"
    print_path = "import hullscreen.launch as package; print(package.__file__)"
    where = call([python, "-c", print_path], cwd=away, scratch=scratch)
    assert where.startswith(str(python.parents[1]))
    workers = [
        subprocess.Popen(
            [hullscreen, "worker", away / category], cwd=away, env=environment(scratch)
        )
        for category in folders
    ]
    try:
        assert [worker.wait(timeout=TIME_LIMIT_S) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert final_hull(CampaignStore(mongo, "elsewhere")).finished
    assert not directory.exists()
