"""Any ASE calculator as a DFT engine; EMT is the embedded default."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hullscreen.dft_adapters.engine import (
    CalculationError,
    DFTResult,
    EngineMissingError,
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
# What calculators raise when they cannot compute something: ASE's own errors are RuntimeError and
# NotImplementedError, those of tables and networks the rest.
CALCULATOR_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
NEEDED = ("energy", "forces", "stress")


def ase_engine_from_table(table: Mapping[str, Any]) -> ASEEngine:
    """Engine of the settings ``calculator`` ("module:Class") and ``arguments`` (a table)."""
    refuse_unknown_keys(table, ("calculator", "arguments"), "the dft table of engine 'ase'")
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


def load_calculator(path: str, arguments: Mapping[str, Any]) -> Any:
    """Instance of the calculator class at ``"module:Class"``.

    Raises
    ------
    EngineMissingError
        The module cannot be imported, has no such class, or the class refuses the arguments.
    """
    module_name, class_name = path.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise EngineMissingError(
            "missing_calculator",
            f"the ASE calculator {path!r} cannot be imported ({error}); "
            f"install the package that provides {module_name.split('.')[0]!r} here",
        ) from error
    calculator_class = getattr(module, class_name, None)
    if not callable(calculator_class):
        raise EngineMissingError(
            "missing_calculator", f"the module {module_name!r} has no calculator {class_name!r}"
        )
    try:
        calculator = calculator_class(**arguments)
    except CALCULATOR_ERRORS as error:
        raise EngineMissingError(
            "wrong_arguments",
            f"the ASE calculator {path!r} does not accept the arguments "
            f"{dict(arguments)!r}: {_first_line(error)}",
        ) from error
    _refuse_ignored_arguments(calculator, path, arguments)
    offered = getattr(calculator, "implemented_properties", ())
    lacking = [name for name in NEEDED if name not in offered]
    if lacking:
        raise EngineMissingError(
            "missing_property",
            f"the ASE calculator {path!r} does not compute {' and '.join(lacking)}, which "
            "relaxing cells and training need; choose another",
        )
    return calculator


def _refuse_ignored_arguments(calculator: Any, path: str, arguments: Mapping[str, Any]) -> None:
    """ASE's base class stores any keyword; one that means nothing would be a silent misspelling."""
    from ase.calculators.calculator import Calculator, FileIOCalculator

    defaults = getattr(calculator, "default_parameters", None)
    if not isinstance(calculator, Calculator) or isinstance(calculator, FileIOCalculator):
        return
    if not defaults:
        return
    named: set[str] = set(defaults)
    for initialiser in (type(calculator).__init__, Calculator.__init__):
        named.update(inspect.signature(initialiser).parameters)
    unknown = sorted(set(arguments) - named)
    if unknown:
        raise EngineMissingError(
            "wrong_arguments",
            f"the ASE calculator {path!r} has no argument {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(repr, sorted(defaults)))}",
        )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _stress_matrix(stress: Any) -> FloatArray:
    """(3, 3) of ASE's six components xx yy zz yz xz xy, or of a matrix."""
    values = np.asarray(stress, dtype=np.float64)
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
                except (CalculationError, *CALCULATOR_ERRORS) as error:
                    reason = _first_line(error)
            if reason:
                known = f"; it has {', '.join(meant_for)}" if meant_for else ""
                raise EngineMissingError(
                    "unknown_element",
                    f"the ASE calculator {self.path!r} cannot compute {element} ({reason}){known}",
                )

    def fingerprint(self) -> str:
        """Hash of import path, arguments (files by content) and the package's version."""
        module_name = self.path.split(":")[0]
        content = {
            "engine": "ase",
            "calculator": self.path,
            "arguments": {key: _content(value) for key, value in self.arguments.items()},
            "version": _version(module_name),
        }
        text = json.dumps(content, sort_keys=True, default=repr)
        return hashlib.sha256(text.encode()).hexdigest()

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
                f"{self.name} failed on {atoms.get_chemical_formula()}: {_first_line(error)}",
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


def _content(value: Any) -> Any:
    """A file named by an argument counts by what it holds."""
    if isinstance(value, (str, Path)) and value and Path(value).is_file():
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()
    return value


def _version(module_name: str) -> str:
    """Version of the package that provides a module, or a hash of the module's source."""
    top = module_name.split(".", maxsplit=1)[0]
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top)
    if names:
        return importlib.metadata.version(names[0])
    module = importlib.import_module(module_name)
    source = getattr(module, "__file__", None)
    if source is None:
        return str(getattr(module, "__version__", ""))
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()
