"""Results of ``pw.x`` from its XML file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from hullscreen.dft_adapters.corrections import Reached
from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.potentials.structures import FloatArray

XML_FILE = "data-file-schema.xml"
# What a file that is cut off or damaged makes of its reader; the last is an unknown encoding.
DAMAGED = (ET.ParseError, ValueError, LookupError)


@dataclass(frozen=True)
class EspressoOutput:
    """Numbers of one XML file, in eV and Å.

    Attributes
    ----------
    energy
        Total energy including the smearing term, eV.
    forces
        eV/Å, shape (n_atoms, 3).
    stress
        eV/Å³ with ASE's sign, shape (3, 3).
    cell, positions
        Å, shapes (3, 3) and (n_atoms, 3).
    symbols
        Elements of the atoms.
    geometry_converged
        Of a relaxation; true of a single scf.
    n_scf
        Self-consistent calculations done.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray
    cell: FloatArray
    positions: FloatArray
    symbols: tuple[str, ...]
    geometry_converged: bool
    n_scf: int


def _child(node: ET.Element, path: str) -> ET.Element:
    found = node.find(path)
    if found is None:
        raise ValueError(f"no <{path}>")
    return found


def _numbers(node: ET.Element) -> FloatArray:
    return np.array((node.text or "").split(), dtype=np.float64)


def parse_xml(path: Path) -> EspressoOutput:
    """Read ``data-file-schema.xml`` of pw.x 6 or 7 (Hartree atomic units).

    Raises
    ------
    CalculationError
        There is no such file, it is no XML, something is missing in it, or the scf of its last
        geometry did not converge.
    """
    directory = path.parent
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - pw.x wrote it in a folder of ours
        return _output(root, directory)
    except FileNotFoundError as error:
        raise CalculationError(
            "no_result",
            f"pw.x ended in {directory} without writing {XML_FILE}; is the executable really "
            "Quantum ESPRESSO's pw.x?",
            directory,
        ) from error
    except DAMAGED as error:
        raise CalculationError(
            "unreadable_result",
            f"{path} is not a complete result of pw.x ({error}); it was interrupted, or the "
            "executable is not Quantum ESPRESSO's pw.x",
            directory,
        ) from error


def is_whole(path: Path) -> bool:
    """Whether there is an XML file that was written to its end."""
    try:
        ET.parse(path)  # noqa: S314 - as in parse_xml
    except (FileNotFoundError, *DAMAGED):
        return False
    return True


def last_step(path: Path) -> Reached | None:
    """The last geometry that a relaxation has evaluated; None if no step is complete.

    pw.x writes the file anew after each step, so this also reads that of a run that was killed, and
    what is whole of one that was killed while it wrote.
    """
    geometry: tuple[FloatArray, FloatArray] | None = None
    n_steps = 0
    try:
        for _, node in ET.iterparse(path):  # noqa: S314 - as in parse_xml
            if node.tag == "step":
                geometry = _geometry(_child(node, "atomic_structure"))
                n_steps += 1
    except (FileNotFoundError, ValueError):
        return None
    except (ET.ParseError, LookupError):
        pass  # it is cut off here
    return Reached(*geometry, n_steps) if geometry else None


def _geometry(structure: ET.Element) -> tuple[FloatArray, FloatArray]:
    """Cell (3, 3) and positions (n_atoms, 3) in Å; `ValueError` if they are no numbers."""
    from ase.units import Bohr

    cell = np.array([_numbers(_child(structure, f"cell/a{i}")) for i in (1, 2, 3)]) * Bohr
    positions = np.array([_numbers(a) for a in _atoms(structure)]).reshape(-1, 3) * Bohr
    if not (np.isfinite(cell).all() and np.isfinite(positions).all()):
        raise ValueError("its geometry is not finite")
    return cell.reshape(3, 3), positions


def _atoms(structure: ET.Element) -> list[ET.Element]:
    return structure.findall("atomic_positions/atom")


def _output(root: ET.Element, directory: Path) -> EspressoOutput:
    from ase.units import Bohr, Hartree

    output = _child(root, "output")
    if _child(output, "convergence_info/scf_conv/convergence_achieved").text != "true":
        raise CalculationError(
            "unconverged_scf",
            f"pw.x did not reach self-consistency in {directory}; lower mixing_beta, or raise "
            "smearing_ry or max_scf_steps",
            directory,
        )
    optimised = output.find("convergence_info/opt_conv/convergence_achieved")
    steps = root.findall("step")
    converged = optimised is None or optimised.text == "true"
    # After the last allowed step pw.x writes the geometry it would have tried next: energy, forces
    # and stress belong to the one of the last step.
    evaluated = output if converged or not steps else steps[-1]
    structure = _child(evaluated, "atomic_structure")
    cell, positions = _geometry(structure)
    energy = float(_child(output, "total_energy/etot").text or "nan") * Hartree
    if not math.isfinite(energy):
        raise ValueError(f"etot is {energy}")
    return EspressoOutput(
        energy=energy,
        forces=_numbers(_child(output, "forces")).reshape(-1, 3) * Hartree / Bohr,
        # pw.x counts pressure as positive, ASE tension.
        stress=-_numbers(_child(output, "stress")).reshape(3, 3) * Hartree / Bohr**3,
        cell=cell,
        positions=positions,
        # Of each kind of atom with a moment of its own, ASE numbers the name.
        symbols=tuple(atom.get("name", "").rstrip("0123456789") for atom in _atoms(structure)),
        geometry_converged=converged,
        # A converged vc-relax ends with one more scf, in the basis of the final cell.
        n_scf=1 if optimised is None else len(steps) + int(converged),
    )
