"""Compiled kernels are kept on disk, and never those of another version of the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hullscreen.potentials
from hullscreen.potentials import compiling

POTENTIALS = Path(hullscreen.potentials.__file__).parent
LENGTH = """
import numpy as np
from hullscreen.potentials.binned_neighbours import sort_into_bins

cell, atom, species = 4.0 * np.eye(3), np.zeros((1, 3)), np.zeros(1, np.int32)
print(sort_into_bins(cell, atom, species, 1, 4.5).cell[0, 0])
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package that can be changed, and a way to run code with it."""
    folder = tmp_path / "tree" / "hullscreen" / "potentials"
    shutil.copytree(POTENTIALS.resolve(), folder, ignore=shutil.ignore_patterns("__pycache__"))

    def run(code, **variables):
        environment = {
            **os.environ,
            "PYTHONPATH": str(tmp_path / "tree"),
            "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        return done.stdout

    return folder, run


def test_a_changed_kernel_is_compiled_anew(copy, tmp_path):
    folder, run = copy

    def cached():
        return set((tmp_path / "numba").rglob("*.nb[ic]"))

    assert float(run(LENGTH)) == 4.0
    first = cached()
    assert first
    assert float(run(LENGTH)) == 4.0
    assert cached() == first
    # A kernel that is called from another file, and not that file.
    changed = folder / "neighbours.py"
    text = changed.read_text()
    assert text.count("    reduced = cell.copy()\n") == 1
    changed.write_text(text.replace("    reduced = cell.copy()\n", "    reduced = 2.0 * cell\n"))
    assert float(run(LENGTH)) == 8.0
    assert first < cached()
    run(LENGTH + "from hullscreen.potentials import compiling; compiling.remove_stale()")
    assert not first & cached()
    # What cannot be read is compiled again, and can be read from then on.
    for path in cached():
        path.write_bytes(b"damaged")
    assert float(run(LENGTH)) == 8.0
    assert float(run(LENGTH)) == 8.0


def test_it_is_known_whether_there_is_anything_compiled(copy):
    _, run = copy
    asking = "from hullscreen.potentials import binned_neighbours, compiling\n"
    asking += "print(compiling.is_compiled())"
    assert run(asking).strip() == "False"
    run(LENGTH)
    assert run(asking).strip() == "True"


def test_any_file_changes_the_digest(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("one = 1\n")
    (tmp_path / "b.py").write_text("two = 2\n")
    # Of a kernel that stands elsewhere.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.py").write_text("four = 4\n")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    digest = compiling._sources_digest.__wrapped__
    seen = {digest(tmp_path / "elsewhere")}
    for name in ("a.py", "b.py", "elsewhere/c.py"):
        (tmp_path / name).write_text("three = 3\n")
        seen.add(digest(tmp_path / "elsewhere"))
    assert len(seen) == 4


def test_nowhere_to_keep_compiled_code(monkeypatch):
    def refuse(*_, cache=False, **__):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(compiling, "njit", refuse)
    assert compiling.kernel(len) is len
