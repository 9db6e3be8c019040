"""``hullscreen warm-cache``: afterwards no other process has anything to compile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hullscreen.workflows.warm_up import PARTS

EVALUATION = """
import numpy as np
from ase.build import bulk
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.structures import from_atoms

potential = untrained(16, ("Cu", "Pd"), cutoff=5.0, min_distance=2.0)
found = potential.evaluate(from_atoms([bulk("Cu", a=3.7)], ("Cu", "Pd")), "structures")
assert np.isfinite(found.energies).all()
"""


def run(words, folder):
    """A fresh process whose caches lie in ``folder``."""
    environment = dict(os.environ)
    environment["NUMBA_CACHE_DIR"] = str(folder / "numba")
    environment["HULLSCREEN_CACHE_DIR"] = str(folder / "bases")
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, *words], env=environment, check=True, capture_output=True, text=True
    )


def cached_files(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.slow
def test_nothing_is_left_to_compile(tmp_path):
    done = run(["-m", "hullscreen.launch", "warm-cache", "--levels", "8", "16", "--json"], tmp_path)
    report = json.loads(done.stdout)
    assert report["prepared"] == [*PARTS, "basis of level 8", "basis of level 16"]
    assert report["compiled"] > 0
    at_work = [line for line in done.stderr.splitlines() if line.startswith("at work: ")]
    assert at_work == [f"at work: {name}" for name in (*PARTS, "bases")]
    before = cached_files(tmp_path)
    assert any(path.suffix == ".nbc" for path in before)
    assert any("16" in path.name and path.parent.name == "bases" for path in before)
    run(["-c", EVALUATION], tmp_path)
    assert cached_files(tmp_path) == before
    # Every part again: nothing is compiled for a second time either.
    done = run(["-m", "hullscreen.launch", "warm-cache", "--levels", "8", "16"], tmp_path)
    assert done.stdout.startswith("nothing to compile: all was prepared")
    assert cached_files(tmp_path) == before


def test_an_odd_level_is_refused(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(["-m", "hullscreen.launch", "warm-cache", "--levels", "7"], tmp_path)
    assert "even" in caught.value.stderr
    assert not list(tmp_path.rglob("*.nbc"))
