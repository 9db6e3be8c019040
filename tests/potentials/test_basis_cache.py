"""Bases on disk: found again, never believed when stale or damaged, never in the way."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials import basis, basis_cache
from hullscreen.potentials.basis import Basis, generate_basis

LEVEL = 6


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty cache directory, and no basis in memory."""
    monkeypatch.setenv("HULLSCREEN_CACHE_DIR", str(tmp_path / "cache"))
    basis._generate_or_read.cache_clear()
    yield tmp_path / "cache"
    basis._generate_or_read.cache_clear()


@pytest.fixture
def calls(monkeypatch):
    """Levels that were generated and not read."""
    found = []
    generate = basis._generate

    def count(level):
        found.append(level)
        return generate(level)

    monkeypatch.setattr(basis, "_generate", count)
    return found


def again():
    """The basis as another process would get it."""
    basis._generate_or_read.cache_clear()
    return generate_basis(LEVEL)


def assert_equal(one: Basis, other: Basis):
    for name, value in vars(one).items():
        np.testing.assert_array_equal(vars(other)[name], value)
        assert type(vars(other)[name]) is type(value)
        assert np.asarray(vars(other)[name]).dtype == np.asarray(value).dtype


def test_second_process_reads(calls):
    first = generate_basis(LEVEL)
    assert_equal(again(), first)
    assert calls == [LEVEL]


def test_nothing_but_the_file_is_left(folder):
    generate_basis(LEVEL)
    assert list(folder.iterdir()) == [basis_cache.path_of(LEVEL)]


def test_lowest_level_needs_no_file(folder):
    generate_basis(2)
    assert not folder.exists()


def test_another_version_is_not_read(calls, monkeypatch):
    generate_basis(LEVEL)
    monkeypatch.setattr(basis_cache, "_fingerprint", lambda: "another")
    again()
    assert calls == [LEVEL, LEVEL]


def test_fingerprint_covers_every_module_that_generates():
    folder = Path(basis_cache.__file__).parent
    assert sorted(path.name for path in folder.glob("basis*.py")) == sorted(basis_cache.GENERATORS)


def test_truncated_files_are_not_believed(calls):
    first = generate_basis(LEVEL)
    path = basis_cache.path_of(LEVEL)
    whole = path.read_bytes()
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        assert basis_cache.read(LEVEL) is None
    # A damaged file is replaced by a good one.
    assert_equal(again(), first)
    assert_equal(again(), first)
    assert calls == [LEVEL, LEVEL]


def test_flipped_bits_are_noticed_or_harmless():
    first = generate_basis(LEVEL)
    path = basis_cache.path_of(LEVEL)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        fields = basis_cache.read(LEVEL)
        if fields is not None:
            assert_equal(Basis(**fields), first)


@pytest.mark.parametrize(
    "change",
    [
        {"n_moments": 7},
        {"n_moments": np.array([8])},
        {"products": np.zeros((3, 3), np.int32)},
        {"products": np.array([[0, 7, 1, 6]], np.int32)},
        {"products": np.array([[0, 0, 0, 5], [0, 0, 1, 6], [0, 0, 1, 7]], np.int32)},
        {"products": np.array([[-1, 0, 1, 5], [0, 0, 1, 6], [0, 0, 1, 7]], np.int32)},
        {"scalars": np.array([0, 8], np.int32)},
        {"scalars": np.array([0.0, 1.0])},
        {"scalars": np.zeros(0, np.int32)},
        {"basic": np.array([[0, 0, 0, -1]] * 5, np.int32)},
        {"basic": np.array("not a table")},
    ],
)
def test_tables_that_cannot_be_are_not_believed(change):
    fields = vars(generate_basis(LEVEL))
    basis_cache.write(LEVEL, {**fields, **change})
    assert basis_cache.read(LEVEL) is None


def test_pickles_are_not_opened():
    fields = vars(generate_basis(LEVEL))
    basis_cache.write(LEVEL, {**fields, "scalars": np.array([print, None], dtype=object)})
    assert basis_cache.read(LEVEL) is None


def test_missing_field(folder):
    generate_basis(LEVEL)
    with basis_cache.path_of(LEVEL).open("wb") as file:
        np.savez(file, basic=np.zeros((1, 4), np.int32))
    assert basis_cache.read(LEVEL) is None


def test_a_directory_that_cannot_be_written(folder, calls):
    # A file in the way stops even the superuser, whom permissions do not.
    folder.write_text("in the way")
    first = generate_basis(LEVEL)
    assert_equal(again(), first)
    assert calls == [LEVEL, LEVEL]
    assert folder.read_text() == "in the way"


def test_a_failed_write_leaves_no_file_behind(folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    generate_basis(LEVEL)
    assert not list(folder.iterdir())


def test_where_bases_are_kept(monkeypatch, tmp_path):
    assert basis_cache.directory() == tmp_path / "cache"
    monkeypatch.delenv("HULLSCREEN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert basis_cache.directory() == tmp_path / "xdg/hullscreen"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert basis_cache.directory() == tmp_path / "home/.cache/hullscreen"


def test_processes_at_once(folder):
    command = (
        "from hullscreen.potentials.basis import generate_basis as g; "
        "b = g(10); print(len(b.products), b.n_moments)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", command], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert said == {"42 41\n"}
    assert list(folder.iterdir()) == [basis_cache.path_of(10)]
