"""The wheel, installed in an empty environment, takes a small campaign to its hull elsewhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Downloads and the compilation of kernels from an empty cache come on top of the campaign.
TIME_LIMIT_S = 900

pytestmark = pytest.mark.slow


def call(command, *, cwd, scratch):
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "NUMBA_CACHE_DIR": str(scratch / "numba"),
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


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
        if path.suffix in {".py", ".toml", ".json"} or path.name in {"py.typed", "README.md"}
    }
    assert {name for name in names if ".dist-info/" not in name} == sources
    assert any(name.endswith("licenses/LICENSE") for name in names)


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
