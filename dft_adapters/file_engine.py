"""The life of one calculation of a code that works through files.

inputs → executable → failures table → correction and again, or results → ``result.json``, written
atomically last. A directory that holds a result for the same inputs is never computed again; one
that does not was interrupted, and goes on from its journal.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from hullscreen.dft_adapters.corrections import (
    JOURNAL_FILE,
    Correction,
    Journal,
    Reached,
)
from hullscreen.dft_adapters.engine import (
    CalculationError,
    DFTResult,
    EngineMissingError,
    fingerprint,
)
from hullscreen.dft_adapters.failures import (
    DISK_FULL,
    ERROR_FILE,
    OUTPUT_FILE,
    Failure,
    raise_if_failed,
)
from hullscreen.dft_adapters.own_folder import own_folder
from hullscreen.dft_adapters.result_file import RESULT_FILE, read_result_file, write_result_file
from hullscreen.dft_adapters.runner import run_command

if TYPE_CHECKING:
    from ase import Atoms

# A disk with less room than this is full, whatever the code says about it.
ROOM_NEEDED_BYTES = 16 * 2**20
# A full disk is mostly somebody's temporary file: waited for so often and so long.
DISK_WAITS_S = (5.0, 30.0, 120.0)


@dataclass(frozen=True)
class Task:
    """What to compute.

    Attributes
    ----------
    kind
        ``"single_point"`` or ``"relax"`` (cell and positions).
    force_tolerance
        eV/Å, for a relaxation.
    stress_tolerance
        eV/Å³, for a relaxation.
    max_steps
        Ionic steps, for a relaxation.
    """

    kind: Literal["single_point", "relax"]
    force_tolerance: float = 0.0
    stress_tolerance: float = 0.0
    max_steps: int = 1


@dataclass(frozen=True)
class Attempt:
    """How a calculation is tried this time.

    Attributes
    ----------
    corrections
        In force, the later ones on top.
    reached
        Where an earlier attempt's relaxation had come; None begins at the start. What depends on
        the start, such as the grid of k points, stays that of the start.
    restart
        Whether the code goes on from its own restart files.
    """

    corrections: Sequence[Correction] = field(default_factory=tuple)
    reached: Reached | None = None
    restart: bool = False


@runtime_checkable
class WritesInputs(Protocol):
    """An engine whose code reads its input from files."""

    def write_inputs(
        self, atoms: Atoms, directory: Path, task: Task, attempt: Attempt
    ) -> Sequence[str]:
        """Write the input files and return their names."""


class FileEngine(WritesInputs, Protocol):
    """What a code's adapter provides for `run_calculation`."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def table(self) -> str:
        """Table of its settings in ``hullscreen.toml``."""

    @property
    def first_words(self) -> str:
        """What the code prints as soon as it has begun; empty: nothing that is known."""

    @property
    def failures(self) -> Sequence[Failure]:
        """Failures table, most specific first."""

    @property
    def corrections(self) -> Mapping[str, Sequence[Correction]]:
        """What to try after a failure, by its reason, one after another."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that the executable needs."""

    @property
    def failure_files(self) -> Sequence[str]:
        """Further files, besides the output, in which a failure shows."""

    @property
    def result_files(self) -> Sequence[str]:
        """Files that results are read from; removed before a run, never mistaken for its own."""

    @property
    def scratch_folders(self) -> Sequence[str]:
        """Folders that are removed when the calculation has ended."""

    @property
    def good_codes(self) -> Sequence[int]:
        """Exit statuses after which there may be a result."""

    @property
    def timeout_s(self) -> float | None:
        """Wall time after which the executable is killed."""

    def content(self, elements: Sequence[str]) -> dict[str, Any]:
        """As in `hullscreen.dft_adapters.engine.Engine`."""

    def command(self, directory: Path) -> list[str]:
        """Executable and arguments, run in ``directory``."""

    def reached(self, directory: Path, atoms: Atoms) -> Reached | None:
        """Where the relaxation in ``directory`` has come; None if it cannot be told or trusted."""

    def read_results(self, directory: Path, atoms: Atoms, task: Task) -> DFTResult:
        """Result of a finished run; `CalculationError` if it is none."""


def run_calculation(engine: FileEngine, atoms: Atoms, directory: Path, task: Task) -> DFTResult:
    """Compute ``task``, or take the result that an earlier run left in ``directory``.

    Raises
    ------
    CalculationError
        The run failed in spite of its corrections; the reason is that of the failures table, or of
        what was missing.
    EngineMissingError
        There is no executable, no pseudopotential, no room on the disk, or no use of the folder.
    """
    try:
        with own_folder(directory) as folder:
            return _computed(engine, atoms, folder, task)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(engine, directory) from error
        raise EngineMissingError(
            "files",
            f"{engine.name} could not compute in {directory}, because its files cannot be used "
            f"({error}); look at the file system and its permissions, and run again",
        ) from error


def _computed(engine: FileEngine, atoms: Atoms, directory: Path, task: Task) -> DFTResult:
    inputs = engine.write_inputs(atoms, directory, task, Attempt())
    inputs_hash = _hash_inputs(engine, atoms, directory, inputs, task)
    earlier = read_result_file(directory / RESULT_FILE, inputs_hash)
    if earlier is not None:
        _remove_scratch(engine, directory)
        return earlier
    journal = Journal.read(directory / JOURNAL_FILE, inputs_hash)
    if journal.begun and task.kind == "relax":
        # It was interrupted; without a complete step it begins where it began.
        reached = engine.reached(directory, atoms)
        if reached is not None:
            journal.go_on_from(reached)
    journal.begun = True
    journal.write()
    try:
        result = _corrected(engine, atoms, directory, task, journal)
    except CalculationError as error:
        _remove_scratch(engine, directory)
        # Who runs it again wants all attempts anew.
        journal.path.unlink(missing_ok=True)
        tried = (*journal.sentences(engine.corrections), *error.corrections)
        told = f" (after corrections: {'; '.join(tried)})" if tried else ""
        raise CalculationError(
            error.reason, f"{error}{told}", directory, tried, journal.cpu_seconds
        ) from error
    except EngineMissingError:
        _remove_scratch(engine, directory)
        raise
    # Any other end is an interruption: the next run goes on from what is in the scratch folder.
    _remove_scratch(engine, directory)
    write_result_file(directory / RESULT_FILE, result, inputs_hash)
    journal.path.unlink(missing_ok=True)
    return result


def _corrected(
    engine: FileEngine, atoms: Atoms, directory: Path, task: Task, journal: Journal
) -> DFTResult:
    """Attempts until one gives a result or nothing is left to try."""
    restart = False
    found: Reached | None = None
    waits = iter(DISK_WAITS_S)
    while True:
        attempt = Attempt(journal.in_force(engine.corrections), journal.reached, restart)
        left = replace(task, max_steps=max(1, task.max_steps - journal.n_evaluations))
        try:
            result = _attempted(engine, atoms, directory, left, attempt, journal)
        except EngineMissingError as error:
            reached = engine.reached(directory, atoms) if task.kind == "relax" else None
            if reached is not None:
                journal.go_on_from(reached)
            with suppress(OSError):  # on a full disk it is known to this process only
                journal.write()
            pause = next(waits, None) if error.reason == DISK_FULL else None
            if pause is None:
                raise
            # Restart files were written onto a full disk.
            restart = False
            time.sleep(pause)
            continue
        except CalculationError as error:
            correction = journal.next_correction(engine.corrections, error.reason)
            if correction is None:
                raise
            before = found
            found = reached = engine.reached(directory, atoms) if task.kind == "relax" else None
            if restart and before is not None and found is not None and found.is_same(before):
                # What it was to go on from could not be used, and nothing was computed.
                reached = replace(found, n_evaluations=0)
            restart = correction.continues == "scratch"
            if correction.continues == "geometry":
                journal.go_on_from(reached)
            else:
                journal.n_evaluations += reached.n_evaluations if reached else 1
            _keep_output(directory, len(journal.applied))
            journal.add(error.reason)
            journal.write()
            continue
        return replace(
            result,
            n_evaluations=result.n_evaluations + journal.n_evaluations,
            cpu_seconds=journal.cpu_seconds,
            corrections=(*journal.sentences(engine.corrections), *result.corrections),
        )


def _attempted(
    engine: FileEngine,
    atoms: Atoms,
    directory: Path,
    task: Task,
    attempt: Attempt,
    journal: Journal,
) -> DFTResult:
    """One run of the executable."""
    if not attempt.restart:
        _remove_scratch(engine, directory)
    outputs = (OUTPUT_FILE, ERROR_FILE, *engine.failure_files, *engine.result_files)
    for stale in (RESULT_FILE, *outputs):
        (directory / stale).unlink(missing_ok=True)
    engine.write_inputs(atoms, directory, task, attempt)
    completed = run_command(
        engine.command(directory),
        directory,
        stdout=OUTPUT_FILE,
        stderr=ERROR_FILE,
        timeout_s=engine.timeout_s,
        environment=engine.environment,
    )
    journal.cpu_seconds += completed.cpu_seconds
    try:
        raise_if_failed(engine, directory, completed)
        return engine.read_results(directory, atoms, task)
    except CalculationError as error:
        if shutil.disk_usage(directory).free < ROOM_NEEDED_BYTES:
            raise _disk_full(engine, directory) from error
        raise


def _disk_full(engine: FileEngine, directory: Path) -> EngineMissingError:
    return EngineMissingError(
        DISK_FULL,
        f"the disk of {directory} has no room left, so {engine.name} could not compute; make room "
        "and run again",
    )


def _keep_output(directory: Path, number: int) -> None:
    """Keep what a failed attempt said."""
    output = directory / OUTPUT_FILE
    if output.is_file():
        output.replace(directory / f"{output.stem}-{number + 1}{output.suffix}")


def _hash_inputs(
    engine: FileEngine, atoms: Atoms, directory: Path, inputs: Sequence[str], task: Task
) -> str:
    digest = hashlib.sha256()
    settings = fingerprint(engine, list(atoms.symbols))
    digest.update(json.dumps([settings, asdict(task)], sort_keys=True).encode())
    for name in inputs:
        digest.update(name.encode() + b"\0" + (directory / name).read_bytes() + b"\0")
    return digest.hexdigest()


def _remove_scratch(engine: FileEngine, directory: Path) -> None:
    for name in engine.scratch_folders:
        folder = directory / name
        if folder.is_dir():
            shutil.rmtree(folder)
