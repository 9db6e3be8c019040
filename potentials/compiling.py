"""How kernels are compiled: once per machine, kept on disk, never stale."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from numba import njit
from numba.core.caching import IndexDataCacheFile

Function = TypeVar("Function", bound=Callable[..., object])

# Sums may be reordered and fused; NaN and infinity keep their meaning, since the relaxer watches
# for them.
FAST = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: Function) -> Function:
    """Compile on the first call; later processes read the machine code from numba's cache.

    numba notices that the file of a function changed, but not that a kernel it calls in another
    file did, and fails on entries that name a class which is gone. Here the files of the cache
    carry a digest of all modules that hold kernels: another version never opens them.
    """
    return _compiled(function, forceinline=False)


def inlined(function: Function) -> Function:
    """A `kernel` that becomes part of its callers.

    Passing a tuple of arrays takes hundreds of instructions, more than a small kernel itself.
    """
    return _compiled(function, forceinline=True)


def _compiled(function: Function, *, forceinline: bool) -> Function:
    compiled = njit(
        cache=True, nogil=True, fastmath=FAST, error_model="numpy", forceinline=forceinline
    )(function)
    stored = compiled._cache  # noqa: SLF001  # numba has no public way to name the files
    stored._cache_file = IndexDataCacheFile(  # noqa: SLF001
        cache_path=stored.cache_path,
        filename_base=f"{stored._impl.filename_base}-{_sources_digest()[:16]}",  # noqa: SLF001
        source_stamp=_sources_digest(),
    )
    return compiled  # type: ignore[no-any-return]  # numba has no types


@cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_bytes()
        if b"numba" in text or b"import kernel" in text:
            digest.update(text)
    return digest.hexdigest()
