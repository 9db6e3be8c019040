"""Generated bases on disk, so that a process reads in milliseconds what took another one seconds.

A file is named after the level and a fingerprint of the modules that generate: tables of another
version are never read. Losing the directory, or a file in it, costs only time.
"""

from __future__ import annotations

import os
import struct
import tempfile
import zipfile
import zlib
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

# Below, there are no products to choose.
LOWEST_LEVEL = 4
FIELDS = ("basic", "products", "scalars", "n_moments")
GENERATORS = (
    "basis.py",
    "basis_cache.py",
    "basis_products.py",
    "basis_splits.py",
    "basis_tensors.py",
)
# What numpy and zipfile raise on files that are cut or damaged, besides OSError.
_DAMAGE = (
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def directory() -> Path:
    """Where bases are kept.

    HULLSCREEN_CACHE_DIR, else hullscreen in XDG_CACHE_HOME, else ~/.cache/hullscreen.
    """
    chosen = os.environ.get("HULLSCREEN_CACHE_DIR")
    if chosen:
        return Path(chosen)
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache_home) if cache_home else Path.home() / ".cache") / "hullscreen"


def path_of(level: int) -> Path:
    """File of a level's basis as this version generates it."""
    return directory() / f"basis-level{level}-{_fingerprint()}.npz"


def read(level: int) -> dict[str, Any] | None:
    """Fields of a basis, or None if there is no file or it is damaged."""
    if level < LOWEST_LEVEL:
        return None
    try:
        with zipfile.ZipFile(path_of(level)) as archive:
            if archive.testzip() is not None:
                return None
        with np.load(path_of(level), allow_pickle=False) as stored:
            fields = {name: stored[name] for name in FIELDS}
    except (OSError, *_DAMAGE):
        return None
    if not _is_sound(**fields):
        return None
    return {**fields, "n_moments": int(fields["n_moments"])}


def write(level: int, fields: dict[str, Any]) -> None:
    """Keep a basis for other processes; nothing happens where nothing can be written."""
    if level < LOWEST_LEVEL:
        return
    try:
        path = path_of(level)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            try:
                np.savez_compressed(file, **fields)
                file.close()
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except (OSError, RuntimeError):
        # A full or read-only disk, or no home directory: the next process generates again.
        return


def _is_sound(
    basic: np.ndarray, products: np.ndarray, scalars: np.ndarray, n_moments: np.ndarray
) -> bool:
    """Whether kernels would find every moment that is named, complete when it is needed."""
    tables = (basic, products, scalars)
    if (
        any(table.dtype != np.int32 for table in tables)
        or n_moments.shape
        or n_moments.dtype.kind != "i"
    ):
        return False
    if basic.ndim != 2 or products.ndim != 2 or scalars.ndim != 1:
        return False
    if basic.shape[1] != 4 or products.shape[1] != 4 or not len(basic) or not len(scalars):
        return False
    left, right, coefficient, target = products.T
    made = np.concatenate([[len(basic) - 1], target])
    return bool(
        basic.min() >= 0
        and min(scalars.min(), left.min(initial=0), right.min(initial=0)) >= 0
        and scalars.max() < n_moments
        and made[-1] == n_moments - 1
        and np.isin(np.diff(made), (0, 1)).all()
        and (np.maximum(left, right) < target).all()
        and (coefficient > 0).all()
    )


@cache
def _fingerprint() -> str:
    """Of the source that decides what a basis looks like."""
    folder = Path(__file__).parent
    return sha256(b"".join((folder / name).read_bytes() for name in GENERATORS)).hexdigest()[:16]
