"""Any ASE calculator as a DFT engine; EMT is the embedded default."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hullscreen.dft_adapters.ase_calculator import (
    CALCULATOR_ERRORS,
    NEEDED,
    argument_content,
    first_line,
    load_calculator,
    package_version,
)
from hullscreen.dft_adapters.engine import (
    CalculationError,
    DFTResult,
    EngineMissingError,
    EvaluationMemory,
    Watch,
    refuse_unknown_keys,
    require_finite,
)
from hullscreen.dft_adapters.relaxation import relax_structure
from hullscreen.potentials.errors import SettingsError
from hullscreen.potentials.structures import FloatArray

if TYPE_CHECKING:
    from ase import Atoms

DEFAULT_CALCULATOR = "ase.calculators.emt:EMT"
# Elements a calculator is meant for, where it cannot be asked. EMT also carries H, C, N and O,
# "just for fun" in the words of its source.
MEANT_FOR = {DEFAULT_CALCULATOR: ("Ag", "Al", "Au", "Cu", "Ni", "Pd", "Pt")}


def ase_engine_from_table(table: Mapping[str, Any]) -> ASEEngine:
    """Engine of the settings ``calculator`` ("module:Class") and ``arguments`` (a table)."""
    refuse_unknown_keys(table, ("calculator", "arguments"), "[dft] in hullscreen.toml")
    path = table.get("calculator", DEFAULT_CALCULATOR)
    arguments = table.get("arguments", {})
    if not isinstance(path, str) or path.count(":") != 1:
        raise SettingsError(
            f"dft calculator must be 'module:Class', for example {DEFAULT_CALCULATOR!r}, "
            f"got {path!r}"
        )
    if not isinstance(arguments, Mapping):
        raise SettingsError(
            f"dft arguments must be a table of keyword arguments, got {arguments!r}"
        )
    return ASEEngine(path, dict(arguments))


def _stress_matrix(stress: Any) -> FloatArray:
    """(3, 3) of ASE's six components xx yy zz yz xz xy, or of a matrix."""
    values = np.array(stress, dtype=np.float64)
    if values.shape == (6,):
        values = values[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    return values


class ASEEngine:
    """One ASE calculator, made once per process and reused for every structure.

    Parameters
    ----------
    calculator
        Import path ``"module:Class"``.
    arguments
        Its keyword arguments.
    """

    def __init__(
        self, calculator: str = DEFAULT_CALCULATOR, arguments: Mapping[str, Any] | None = None
    ) -> None:
        self.path = calculator
        self.arguments = dict(arguments or {})
        self.memory: EvaluationMemory | None = None
        self._calculator: Any = None

    @property
    def name(self) -> str:
        """The calculator's class name."""
        return self.path.split(":")[1]

    @property
    def calculator(self) -> Any:
        """The instance, made at first use: a network's weights take seconds to load."""
        if self._calculator is None:
            self._calculator = load_calculator(self.path, self.arguments)
        return self._calculator

    def check(self, elements: Sequence[str]) -> None:
        """Compute one atom of each element, in an fcc cell.

        Raises
        ------
        EngineMissingError
            The calculator cannot be made, or does not know one of ``elements``.
        """
        from ase import Atoms
        from ase.data import chemical_symbols

        for element in elements:
            if element not in chemical_symbols[1:]:
                raise EngineMissingError("unknown_element", f"there is no element {element!r}")
            half = 2.0
            cell = [[0.0, half, half], [half, 0.0, half], [half, half, 0.0]]
            atoms = Atoms(element, positions=[[0.0, 0.0, 0.0]], cell=cell, pbc=True)
            meant_for = MEANT_FOR.get(self.path)
            reason = ""
            if meant_for is not None and element not in meant_for:
                reason = "no parameters"
            else:
                try:
                    self._evaluate(atoms, Path())
                except EngineMissingError:
                    raise
                except CALCULATOR_ERRORS as error:
                    reason = first_line(error)
            if reason:
                known = f"; it has {', '.join(meant_for)}" if meant_for else ""
                raise EngineMissingError(
                    "unknown_element",
                    f"the ASE calculator {self.path!r} cannot compute {element} ({reason}){known}",
                )

    def content(self, elements: Sequence[str]) -> dict[str, Any]:
        """Import path, arguments (files by content) and the package's version."""
        del elements
        return {
            "engine": "ase",
            "calculator": self.path,
            "arguments": {key: argument_content(value) for key, value in self.arguments.items()},
            "version": package_version(self.path),
        }

    def single_point(self, atoms: Atoms, directory: Path) -> DFTResult:
        """Energy, forces and stress of ``atoms``."""
        start = _cpu_seconds()
        energy, forces, stress = self._evaluate(atoms, directory)
        return DFTResult(
            energy=energy,
            forces=forces,
            stress=stress,
            cell=np.array(atoms.cell[:], dtype=np.float64),
            positions=np.array(atoms.positions, dtype=np.float64),
            converged=True,
            n_evaluations=1,
            cpu_seconds=_cpu_seconds() - start,
            engine=self.name,
        )

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
        """Relax cell and positions; see `hullscreen.dft_adapters.engine.Engine.relax`.

        Raises
        ------
        CalculationError
            The calculator failed, or the structure exploded or collapsed.
        """
        start = _cpu_seconds()
        working = atoms.copy()

        def evaluate(
            cell: FloatArray, positions: FloatArray
        ) -> tuple[float, FloatArray, FloatArray]:
            working.set_cell(cell)
            working.set_positions(positions)
            return self._evaluate(working, directory)

        end = relax_structure(
            evaluate,
            np.array(atoms.cell[:], dtype=np.float64),
            np.array(atoms.positions, dtype=np.float64),
            force_tolerance=force_tolerance,
            stress_tolerance=stress_tolerance,
            max_steps=max_steps,
            watch=watch,
        )
        if end.reason in ("collapsed", "exploded"):
            raise CalculationError(
                end.reason,
                f"the relaxation of {atoms.get_chemical_formula()} with {self.name} {end.reason} "
                f"after {end.n_evaluations} evaluations; its start geometry or the calculator "
                "is far from any crystal",
                directory,
            )
        return DFTResult(
            energy=end.energy,
            forces=end.forces,
            stress=end.stress,
            cell=end.cell,
            positions=end.positions,
            converged=not end.reason,
            n_evaluations=end.n_evaluations,
            cpu_seconds=_cpu_seconds() - start,
            engine=self.name,
            reason=end.reason,
        )

    def _evaluate(self, atoms: Atoms, directory: Path) -> tuple[float, FloatArray, FloatArray]:
        if self.memory is None:
            return self._compute(atoms, directory)
        known = self.memory.recall(atoms)
        if known is None:
            known = self._compute(atoms, directory)
            self.memory.remember(atoms, known)
        return known

    def _compute(self, atoms: Atoms, directory: Path) -> tuple[float, FloatArray, FloatArray]:
        from ase.calculators.calculator import FileIOCalculator, all_changes

        calculator = self.calculator
        if isinstance(calculator, FileIOCalculator):
            calculator.directory = str(directory)
        # One call for everything, without ASE's comparison with the previous atoms: that costs
        # 0.15 ms a property, and every call here is a new geometry.
        try:
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                calculator.calculate(atoms, list(NEEDED), list(all_changes))
                results = calculator.results
                energy = float(np.asarray(results["energy"], dtype=np.float64).reshape(()))
                forces = np.array(results["forces"], dtype=np.float64)
                stress = _stress_matrix(results["stress"])
        except CALCULATOR_ERRORS as error:
            raise CalculationError(
                "calculator_failed",
                f"{self.name} failed on {atoms.get_chemical_formula()}: {first_line(error)}",
                directory,
            ) from error
        require_finite(
            energy, forces, stress, n_atoms=len(atoms), who=self.name, directory=directory
        )
        return energy, forces, stress


def _cpu_seconds() -> float:
    """Processor time of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
