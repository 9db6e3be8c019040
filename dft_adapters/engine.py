"""What every DFT engine offers, and what it gives back.

An engine is anything that turns a structure into energy, forces and stress. The campaign knows
only this Protocol; `load_engine` makes one from the ``[dft]`` table of the settings.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from hullscreen.potentials.errors import DFTError, SettingsError
from hullscreen.potentials.structures import FloatArray

if TYPE_CHECKING:
    from ase import Atoms

ABSURD_FORCE = 1e3
"""Forces beyond this, eV/Å, are an accident of the engine; bonds break at a few."""

# name in the settings → where the function that makes the engine lives
ENGINES = {
    "ase": "hullscreen.dft_adapters.ase_engine:ase_engine_from_table",
    "quantum_espresso": "hullscreen.dft_adapters.quantum_espresso:espresso_engine_from_table",
    "vasp": "hullscreen.dft_adapters.vasp:vasp_engine_from_table",
}


class EngineMissingError(DFTError):
    """The engine cannot serve: no executable, no pseudopotential, no room on the disk.

    It says nothing about the structure, which is computed as soon as the engine is back.

    Attributes
    ----------
    reason
        Key of the kind of failure, for example ``"missing_executable"``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


class CalculationError(DFTError):
    """One calculation gave no result that may be used as a label.

    Attributes
    ----------
    reason
        Key of the kind of failure, for example ``"unconverged_scf"``.
    directory
        Where the files of the calculation are.
    corrections
        What was tried before it was given up, as in `DFTResult`.
    cpu_seconds
        Processor time of all attempts; 0 if it is not known.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        directory: Path,
        corrections: Sequence[str] = (),
        cpu_seconds: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.directory = directory
        self.corrections = tuple(corrections)
        self.cpu_seconds = cpu_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = (self.reason, str(self), self.directory, self.corrections, self.cpu_seconds)
        return type(self), arguments


@dataclass(frozen=True, slots=True)
class Step:
    """One energy evaluation inside a relaxation, as a `Watch` sees it.

    Attributes
    ----------
    index
        Number of the evaluation, from zero.
    energy
        Total energy in eV.
    forces
        Forces in eV/Å, shape (n_atoms, 3).
    stress
        Stress in eV/Å³ with ASE's sign, shape (3, 3).
    cell, positions
        Geometry in Å, shapes (3, 3) and (n_atoms, 3).
    accepted
        False for a trial that went uphill and was taken back.
    """

    index: int
    energy: float
    forces: FloatArray
    stress: FloatArray
    cell: FloatArray
    positions: FloatArray
    accepted: bool


Watch = Callable[[Step], bool]


@dataclass(frozen=True)
class DFTResult:
    """Energy, forces and stress of a structure, or of the end of its relaxation.

    Attributes
    ----------
    energy
        Total energy in eV.
    forces
        Forces in eV/Å, shape (n_atoms, 3).
    stress
        Stress in eV/Å³ with ASE's sign (positive under tension), shape (3, 3).
    cell, positions
        The geometry these belong to in Å, shapes (3, 3) and (n_atoms, 3).
    converged
        The relaxation reached its tolerances; always true of a single point.
    n_evaluations
        Energy evaluations: ionic steps of a code's own relaxation, calls of an ASE calculator.
    cpu_seconds
        Processor time of all its processes.
    engine
        Name of the engine.
    reason
        Why it did not converge (``"step_limit"``, ``"stopped_by_watch"``, ``"stalled"``), or "".
    corrections
        What went wrong on the way and what was changed: "unconverged_scf: slower mixing".
    """

    energy: float
    forces: FloatArray
    stress: FloatArray
    cell: FloatArray
    positions: FloatArray
    converged: bool
    n_evaluations: int
    cpu_seconds: float
    engine: str
    reason: str = ""
    corrections: tuple[str, ...] = ()


class Engine(Protocol):
    """Energy, forces and stress of periodic structures."""

    @property
    def name(self) -> str:
        """Short name for reports and documents."""

    def check(self, elements: Sequence[str]) -> None:
        """Raise `EngineMissingError` with one sentence if ``elements`` cannot be computed."""

    def content(self, elements: Sequence[str]) -> dict[str, Any]:
        """Everything that changes energies of structures of ``elements``, as plain values."""

    def single_point(self, atoms: Atoms, directory: Path) -> DFTResult:
        """Energy, forces and stress of ``atoms``; files go to ``directory``."""

    def relax(
        self,
        atoms: Atoms,
        directory: Path,
        *,
        force_tolerance: float,
        stress_tolerance: float,
        max_steps: int,
        watch: Watch | None = None,
    ) -> DFTResult:
        """Relax cell and positions of ``atoms``.

        Parameters
        ----------
        atoms
            Start geometry; it is not changed.
        directory
            Where files go.
        force_tolerance
            Largest force on an atom at the end, eV/Å.
        stress_tolerance
            Largest stress component at the end, eV/Å³.
        max_steps
            Most energy evaluations.
        watch
            Called at every evaluation; returning False ends the relaxation, unconverged.
            An engine that relaxes inside its own executable calls it only afterwards, if at all.
        """


class Described(Protocol):
    """Part of an engine that says what its energies depend on."""

    @property
    def name(self) -> str:
        """As in `Engine`."""

    def content(self, elements: Sequence[str]) -> dict[str, Any]:
        """As in `Engine`."""


def fingerprint(engine: Described, elements: Sequence[str]) -> str:
    """Hash of everything that changes energies of structures of these elements.

    A structure has the same one in every campaign whose engine computes it in the same way,
    whatever other elements the campaign has.
    """
    text = json.dumps(engine.content(sorted(set(elements))), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def description(engine: Described, elements: Sequence[str]) -> dict[str, Any]:
    """The content as a document keeps it, for people: the name and plain JSON."""
    content = json.loads(json.dumps(engine.content(sorted(set(elements))), default=repr))
    return {
        "name": engine.name,
        "fingerprint": fingerprint(engine, elements),
        "content": content,
    }


class EvaluationMemory(Protocol):
    """Where an engine that works in this process keeps each evaluation of a relaxation."""

    def recall(self, atoms: Atoms) -> tuple[float, FloatArray, FloatArray] | None:
        """Energy, forces and stress computed earlier for this very structure."""

    def remember(self, atoms: Atoms, evaluated: tuple[float, FloatArray, FloatArray]) -> None:
        """Keep energy, forces and stress."""


@runtime_checkable
class Remembering(Protocol):
    """An engine that asks its memory before each evaluation."""

    memory: EvaluationMemory | None


@contextmanager
def remembering_evaluations(engine: Engine, memory: EvaluationMemory) -> Iterator[bool]:
    """Let an engine recall and keep single evaluations; says whether it can."""
    if not isinstance(engine, Remembering):
        yield False
        return
    engine.memory = memory
    try:
        yield True
    finally:
        engine.memory = None


def load_engine(table: Mapping[str, Any]) -> Engine:
    """Make the engine that a settings table describes.

    Parameters
    ----------
    table
        ``{"engine": "ase", "calculator": "ase.calculators.emt:EMT", "arguments": {...}}`` or
        ``{"engine": "quantum_espresso", "preset": "debian-lda", ...}``.

    Raises
    ------
    SettingsError
        Unknown engine, unknown key, or a value of the wrong type.
    EngineMissingError
        An ASE calculator that cannot be imported or constructed.
    """
    name = table.get("engine")
    if name not in ENGINES:
        raise SettingsError(
            f"dft engine must be one of {', '.join(map(repr, ENGINES))}, got {name!r}"
        )
    module, function = ENGINES[name].split(":")
    make: Callable[[Mapping[str, Any]], Engine] = getattr(importlib.import_module(module), function)
    return make({key: value for key, value in table.items() if key != "engine"})


def refuse_unknown_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise `SettingsError` naming the nearest known key."""
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise SettingsError(f"{where} has no key {key!r}; {hint}")


def require_finite(
    energy: float,
    forces: FloatArray,
    stress: FloatArray,
    *,
    n_atoms: int,
    who: str,
    directory: Path,
) -> None:
    """Raise `CalculationError` unless the numbers are numbers and the shapes are right."""
    if np.shape(forces) != (n_atoms, 3) or np.shape(stress) != (3, 3):
        raise CalculationError(
            "wrong_shape",
            f"{who} gave forces of shape {np.shape(forces)} and stress of shape "
            f"{np.shape(stress)} for {n_atoms} atoms; expected ({n_atoms}, 3) and (3, 3)",
            directory,
        )
    for quantity, value in (("an energy", energy), ("a force", forces), ("a stress", stress)):
        finite = math.isfinite(value) if isinstance(value, float) else np.isfinite(value).all()
        if not finite:
            raise CalculationError(
                "not_finite",
                f"{who} gave {quantity} that is not a finite number for {n_atoms} atoms in "
                f"{directory}; the structure may be far from any crystal",
                directory,
            )
    strongest = float(np.abs(forces).max(initial=0.0))
    if strongest > ABSURD_FORCE:
        raise CalculationError(
            "absurd_force",
            f"{who} gave a force of {strongest:.3g} eV/Å, which no crystal that one would look at "
            f"has (limit {ABSURD_FORCE:g}); check the calculation in {directory}",
            directory,
        )
