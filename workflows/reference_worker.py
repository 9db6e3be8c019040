"""What a process of the brute-force comparison runs: relaxations with the reference engine.

It imports neither numba, pymatgen nor pymongo, so that a process starts in a fraction of a second.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from hullscreen.database.dft_documents import ReferenceRelaxation
from hullscreen.database.documents import Geometry
from hullscreen.dft_adapters.engine import (
    CalculationError,
    DFTResult,
    Engine,
    load_engine,
    remembering_evaluations,
)
from hullscreen.dft_adapters.guardian import die_with_parent
from hullscreen.potentials.structures import FloatArray

Evaluated = tuple[float, FloatArray, FloatArray]


@dataclass(frozen=True)
class ReferenceTask:
    """How a pool is relaxed.

    Attributes
    ----------
    engine_table
        The engine as `load_engine` takes it, in JSON.
    fingerprint
        Of that engine.
    force_tolerance, stress_tolerance, max_steps
        As in `hullscreen.dft_adapters.engine.Engine.relax`: eV/Å, eV/Å³, evaluations.
    directory
        Under which each relaxation has a folder named by its key.
    """

    engine_table: str
    fingerprint: str
    force_tolerance: float
    stress_tolerance: float
    max_steps: int
    directory: Path


@dataclass(frozen=True)
class StartGeometry:
    """A structure to be relaxed, and the key under which its relaxation is stored.

    Attributes
    ----------
    numbers
        Atomic numbers (n_atoms,).
    cell, positions
        In Å, shapes (3, 3) and (n_atoms, 3).
    """

    key: str
    numbers: tuple[int, ...]
    cell: FloatArray
    positions: FloatArray


@dataclass
class EvaluationCounter:
    """Counts every evaluation that an engine begins, also those that fail; remembers nothing."""

    count: int = 0

    def recall(self, atoms: Atoms) -> Evaluated | None:
        """Count; nothing was computed earlier."""
        del atoms
        self.count += 1
        return None

    def remember(self, atoms: Atoms, evaluated: Evaluated) -> None:
        """Keep nothing."""


def begin_worker(parent: int) -> None:
    """Prepare a worker process: it ends with its parent, which alone answers Ctrl-C.

    A handler that does nothing is set, since programs started from here would inherit an ignored
    signal.
    """
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    die_with_parent(signal.SIGKILL, parent)


def relax_all(task: ReferenceTask, starts: Sequence[StartGeometry]) -> list[ReferenceRelaxation]:
    """Relax structures one after another; a failure is a result with its reason.

    Raises
    ------
    DFTError
        The engine cannot serve at all.
    """
    engine = _engine(task.engine_table)
    return [relax_one(engine, task, start) for start in starts]


def relax_one(engine: Engine, task: ReferenceTask, start: StartGeometry) -> ReferenceRelaxation:
    """Relax one structure and count what it took."""
    atoms = Atoms(start.numbers, positions=start.positions, cell=start.cell, pbc=True)
    counter = EvaluationCounter()
    began_s, began_cpu_s = time.perf_counter(), _cpu_seconds()
    result: DFTResult | None = None
    reason = message = ""
    with remembering_evaluations(engine, counter) as counted:
        try:
            result = engine.relax(
                atoms,
                task.directory / start.key[:2] / start.key,
                force_tolerance=task.force_tolerance,
                stress_tolerance=task.stress_tolerance,
                max_steps=task.max_steps,
            )
        except CalculationError as error:
            reason, message = error.reason, str(error)
    n_evaluations = counter.count if counted else 1 if result is None else result.n_evaluations
    if result is not None and not result.converged:
        reason = result.reason or "not_converged"
        message = f"it did not converge in {result.n_evaluations} evaluations ({reason})"
    return ReferenceRelaxation(
        key=start.key,
        state="failed" if reason else "done",
        engine=task.fingerprint,
        numbers=start.numbers,
        geometry=(
            Geometry(start.cell, start.positions)
            if result is None
            else Geometry(np.array(result.cell), np.array(result.positions))
        ),
        energy=None if result is None else float(result.energy),
        reason=reason,
        message=message,
        n_evaluations=n_evaluations,
        max_steps=task.max_steps,
        cpu_seconds=_cpu_seconds() - began_cpu_s,
        wall_seconds=time.perf_counter() - began_s,
    )


@functools.cache
def _engine(table: str) -> Engine:
    """One engine in each process."""
    return load_engine(json.loads(table))


def _cpu_seconds() -> float:
    """Processor time of this process and of the programs it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
