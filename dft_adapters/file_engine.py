"""The life of one calculation of a code that works through files.

inputs → executable → failures table → results → ``result.json``, written atomically last. A
directory that holds a result for the same inputs is never computed again; one that does not was
interrupted, and starts afresh.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from hullscreen.dft_adapters.engine import CalculationError, DFTResult
from hullscreen.dft_adapters.runner import Completed, run_command

if TYPE_CHECKING:
    from ase import Atoms

RESULT_FILE = "result.json"
OUTPUT_FILE = "output.txt"
ERROR_FILE = "errors.txt"
TAIL_BYTES = 200_000


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
class Failure:
    """A row of an engine's failures table.

    Attributes
    ----------
    pattern
        Regular expression looked for in the output, the errors and `FileEngine.failure_files`.
    reason
        Key of the kind of failure.
    meaning
        End of the sentence "the calculation … ": what happened and what helps.
    """

    pattern: str
    reason: str
    meaning: str


class FileEngine(Protocol):
    """What a code's adapter provides for `run_calculation`."""

    @property
    def name(self) -> str:
        """Short name for reports."""

    @property
    def failures(self) -> Sequence[Failure]:
        """Failures table, most specific first."""

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

    def fingerprint(self) -> str:
        """Content hash of everything that changes energies."""

    def write_inputs(self, atoms: Atoms, directory: Path, task: Task) -> Sequence[str]:
        """Write the input files and return their names."""

    def command(self, directory: Path) -> list[str]:
        """Executable and arguments, run in ``directory``."""

    def read_results(self, directory: Path, atoms: Atoms, task: Task) -> DFTResult:
        """Result of a finished run; `CalculationError` if it is none."""


def run_calculation(engine: FileEngine, atoms: Atoms, directory: Path, task: Task) -> DFTResult:
    """Compute ``task``, or take the result that an earlier run left in ``directory``.

    Raises
    ------
    CalculationError
        The run failed; the reason is that of the failures table, or of what was missing.
    EngineMissingError
        There is no executable or no pseudopotential.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _remove_scratch(engine, directory)
    inputs = engine.write_inputs(atoms, directory, task)
    inputs_hash = _hash_inputs(engine, directory, inputs, task)
    earlier = read_result_file(directory / RESULT_FILE, inputs_hash)
    if earlier is not None:
        return earlier
    outputs = (OUTPUT_FILE, ERROR_FILE, *engine.failure_files, *engine.result_files)
    for stale in (RESULT_FILE, *outputs):
        (directory / stale).unlink(missing_ok=True)
    try:
        completed = run_command(
            engine.command(directory),
            directory,
            stdout=OUTPUT_FILE,
            stderr=ERROR_FILE,
            timeout_s=engine.timeout_s,
        )
        raise_if_failed(engine, directory, completed)
        result = replace(
            engine.read_results(directory, atoms, task), cpu_seconds=completed.cpu_seconds
        )
    finally:
        _remove_scratch(engine, directory)
    write_result_file(directory / RESULT_FILE, result, inputs_hash)
    return result


def raise_if_failed(engine: FileEngine, directory: Path, completed: Completed) -> None:
    """Look the output up in the failures table."""
    if completed.timed_out:
        raise CalculationError(
            "timeout",
            f"{engine.name} was killed after {engine.timeout_s:g} s in {directory}; raise "
            "`timeout_s` in the dft table of the settings, or run on more cores",
            directory,
        )
    text = "\n".join(
        _tail(directory / name) for name in (OUTPUT_FILE, ERROR_FILE, *engine.failure_files)
    )
    for failure in engine.failures:
        if re.search(failure.pattern, text):
            raise CalculationError(
                failure.reason,
                f"the {engine.name} calculation in {directory} {failure.meaning}",
                directory,
            )
    if completed.returncode not in engine.good_codes:
        raise CalculationError(
            "unknown_failure",
            f"{engine.name} ended with exit status {completed.returncode} and no message that is "
            f"known; see {OUTPUT_FILE} and {ERROR_FILE} in {directory}",
            directory,
        )


def read_result_file(path: Path, inputs_hash: str) -> DFTResult | None:
    """The stored result if it belongs to these inputs; an unreadable file counts as none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    names = {field.name for field in fields(DFTResult)}
    if not isinstance(document, dict) or document.get("inputs_hash") != inputs_hash:
        return None
    values: dict[str, Any] = document.get("result", {})
    if set(values) != names:
        return None
    for name in ("forces", "stress", "cell", "positions"):
        values[name] = np.array(values[name], dtype=np.float64)
    return DFTResult(**values)


def write_result_file(path: Path, result: DFTResult, inputs_hash: str) -> None:
    """Write atomically: a reader finds the whole result or none, also after a power cut."""
    values = {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in asdict(result).items()
    }
    temporary = path.with_suffix(".part")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump({"inputs_hash": inputs_hash, "result": values}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _hash_inputs(engine: FileEngine, directory: Path, inputs: Sequence[str], task: Task) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([engine.fingerprint(), asdict(task)], sort_keys=True).encode())
    for name in inputs:
        digest.update(name.encode() + b"\0" + (directory / name).read_bytes() + b"\0")
    return digest.hexdigest()


def _remove_scratch(engine: FileEngine, directory: Path) -> None:
    for name in engine.scratch_folders:
        folder = directory / name
        if folder.is_dir():
            shutil.rmtree(folder)


def _tail(path: Path) -> str:
    """The last part of a text file, where codes say why they stopped."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        return stream.read().decode("utf-8", errors="replace")
