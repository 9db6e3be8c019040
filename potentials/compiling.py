"""How kernels are compiled: once per machine, kept on disk, never stale."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from numba import config, njit
from numba.core.caching import IndexDataCacheFile
from numba.core.event import Event, Listener, register

Function = TypeVar("Function", bound=Callable[..., object])

# Sums may be reordered and fused; NaN and infinity keep their meaning, since the relaxer watches
# for them.
FAST = {"reassoc", "contract", "nsz", "arcp"}
_FAST_OPTIONS = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}


class _Announcer(Listener):  # type: ignore[misc]  # numba has no types
    """Says once that compiling has begun, since nothing else may happen for a minute."""

    def __init__(self) -> None:
        self.n_compiled = 0

    def on_start(self, event: Event) -> None:
        """Called when a function begins to be compiled; not when it comes from the cache."""
        if not event.data["dispatcher"].py_func.__module__.startswith("hullscreen."):
            return
        if not self.n_compiled:
            _LOGGER.info(
                "compiling for this machine, which is done once and takes a minute or two; "
                "`hullscreen warm-cache` does it all beforehand"
            )
        self.n_compiled += 1

    def on_end(self, event: Event) -> None:
        """Called when it has been compiled."""


class _CacheFile(IndexDataCacheFile):  # type: ignore[misc]  # numba has no types
    """Where one kernel is kept. What cannot be read or written costs time, never a result."""

    def load(self, key: object) -> object:
        """The kernel compiled for ``key``, None if it is not there or damaged."""
        try:
            return super().load(key)
        except Exception:  # noqa: BLE001  a damaged pickle raises whatever its bytes call for
            self._forget()
            return None

    def save(self, key: object, data: object) -> None:
        """Keep a kernel, if there is room for it."""
        try:
            Path(self._cache_path).mkdir(parents=True, exist_ok=True)
            super().save(key, data)
        except OSError as error:
            _LOGGER.info("compiled code cannot be kept, so the next run compiles again: %s", error)

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()


_LOGGER = logging.getLogger(__name__)
_ANNOUNCER = _Announcer()
register("numba:compile", _ANNOUNCER)

# Inside the folder that ``NUMBA_CACHE_DIR`` names.
SHARED = "hullscreen"
# Where compiled kernels are kept, with what their files' names end in if they are of this version.
_FOLDERS: dict[str, set[str]] = {}
_NAMED = re.compile(r"-([0-9a-f]{16})(?:\.\d+)?\.nb[ic]$")


def kernel(function: Function) -> Function:
    """Compile on the first call; later processes read the machine code from numba's cache.

    numba notices that the file of a function changed, but not that a kernel it calls in another
    file did. Here an entry is valid only for the very text of all files of this package and of the
    function's own, and it is kept in a file of its own, apart from those of versions whose classes
    are gone. In the folder that ``NUMBA_CACHE_DIR`` names, installations of one version share it.
    """
    return _compiled(function, **_FAST_OPTIONS, forceinline=False)


def is_compiled() -> bool:
    """Whether a process of this version has kept kernels that were imported here."""
    return any(
        next(Path(folder).glob(f"*-{digest}*.nbi"), None) is not None
        for folder, digests in _FOLDERS.items()
        for digest in digests
    )


def exact_kernel(function: Function) -> Function:
    """A `kernel` whose sums are carried out in the order in which they are written."""
    return _compiled(function, nogil=True)


def inlined(function: Function) -> Function:
    """A `kernel` that becomes part of its callers.

    Passing a tuple of arrays takes hundreds of instructions, more than a small kernel itself.
    """
    return _compiled(function, **_FAST_OPTIONS, forceinline=True)


def _compiled(function: Function, **options: object) -> Function:
    try:
        compiled = njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder can be written: each process compiles for itself.
        return njit(**options)(function)  # type: ignore[no-any-return]  # numba has no types
    # numba (0.62 to 0.68 were looked at) has no public way to name the files of its cache. There is
    # none where compiling is switched off.
    stored = getattr(compiled, "_cache", None)
    if stored is not None:
        digest = _sources_digest(Path(function.__code__.co_filename).parent)
        base = f"{stored._impl.filename_base}-{digest[:16]}"  # noqa: SLF001
        folder = str(Path(config.CACHE_DIR) / SHARED) if config.CACHE_DIR else stored.cache_path
        stored._cache_file = _CacheFile(  # noqa: SLF001
            cache_path=folder, filename_base=base, source_stamp=digest
        )
        _FOLDERS.setdefault(folder, set()).add(digest[:16])
    return compiled  # type: ignore[no-any-return]  # numba has no types


def compiled_now() -> int:
    """How many kernels this process has compiled, not read from the cache."""
    return _ANNOUNCER.n_compiled


def remove_stale() -> int:
    """Delete the cached kernels of other versions of this package; returns how many files.

    Only files that `kernel` named are looked at, in the folders where it keeps them now.
    """
    stale = [
        path
        for folder, current in sorted(_FOLDERS.items())
        for path in Path(folder).glob("*.nb[ic]")
        if (named := _NAMED.search(path.name)) and named[1] not in current
    ]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


@cache
def _sources_digest(folder: Path) -> str:
    """Of the files of this package, and of those in the folder of a kernel elsewhere."""
    digest = hashlib.sha256()
    for one in sorted({Path(__file__).parent, folder}):
        for path in sorted(one.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
