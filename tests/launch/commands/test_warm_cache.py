"""``hullscreen warm-cache`` and what it refuses; what it does, the tests of packaging show."""

import os
import subprocess
import sys

import pytest


def run(words, folder):
    """A fresh process whose caches lie in ``folder``."""
    environment = dict(os.environ)
    environment["NUMBA_CACHE_DIR"] = str(folder / "numba")
    environment["HULLSCREEN_CACHE_DIR"] = str(folder / "bases")
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, *words], env=environment, check=True, capture_output=True, text=True
    )


def test_an_odd_level_is_refused(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(["-m", "hullscreen.launch", "warm-cache", "--levels", "7"], tmp_path)
    assert "even" in caught.value.stderr
    assert not list(tmp_path.rglob("*.nbc"))
