"""What ``pw.x`` leaves behind: results from its XML file, failures from its messages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.dft_adapters.file_engine import Failure
from hullscreen.potentials.structures import FloatArray

XML_FILE = "data-file-schema.xml"
CRASH_FILE = "CRASH"
# pw.x: 0 done, 3 done but the geometry not converged. 2 is an unconverged scf as well as
# max_seconds, 1 an error; none of these says so reliably in words alone, or by its number alone.
GOOD_CODES = (0, 3)

FAILURES = (
    Failure(
        r"convergence NOT achieved",
        "unconverged_scf",
        "did not reach self-consistency; lower mixing_beta or raise smearing_ry or max_scf_steps",
    ),
    Failure(
        r"Maximum CPU time exceeded",
        "time_limit",
        "ran into its max_seconds; raise it or run on more cores",
    ),
    Failure(
        r"from readpp|[Ee]rror in routine readpp",
        "missing_pseudopotential",
        "did not find or could not read a pseudopotential; look at `pseudopotentials` and `files`",
    ),
    Failure(
        r"(from|routine) (checkallsym|check_atoms|sym_rho_init).*\n.*(overlap|coinciding|same)"
        r"|atoms #.*overlap",
        "overlapping_atoms",
        "holds two atoms at the same place; the structure is wrong",
    ),
    Failure(
        r"too few bands",
        "too_few_bands",
        "has too few bands; set nbnd in extra_input",
    ),
    Failure(
        r"(charge is wrong|wrong charge)",
        "wrong_charge",
        "lost electrons while starting; the cell may be far too small, or a pseudopotential bad",
    ),
    Failure(
        r"S matrix not positive definite|problems computing cholesky",
        "diagonalisation",
        "could not diagonalise; set diagonalization = 'cg' in extra_input, or look for atoms that "
        "are too close",
    ),
    Failure(
        r"(not enough space|dimensions are too small|too large a FFT|out of memory|"
        r"[Cc]annot allocate|Allocation would exceed|Not enough space allocated for radial FFT)",
        "memory",
        "needed more memory or a larger table than there is; raise cell_factor in extra_input if "
        "the cell grew, or run on more cores",
    ),
    Failure(
        r"(from|routine) (read_namelists|read_cards|iosys|input|card_\w+)",
        "wrong_input",
        "was refused its input; look at extra_input in the settings",
    ),
    Failure(
        r"%%%%%%%%\s*\n.*(task #|Error in routine)",
        "error",
        f"stopped with an error of pw.x; its message is in the file {CRASH_FILE} there",
    ),
    Failure(
        r"Fortran runtime error|forrtl: severe|SIGSEGV|[Ss]egmentation fault",
        "crash",
        "crashed inside pw.x; errors.txt there has its last words (often a damaged "
        "pseudopotential or a full disk)",
    ),
)


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
    except (ET.ParseError, ValueError) as error:
        raise CalculationError(
            "unreadable_result",
            f"{path} is not a complete result of pw.x ({error}); it was interrupted, or the "
            "executable is not Quantum ESPRESSO's pw.x",
            directory,
        ) from error


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
    energy = float(_numbers(_child(output, "total_energy/etot"))[0]) * Hartree
    if not math.isfinite(energy):
        raise ValueError(f"etot is {energy}")
    return EspressoOutput(
        energy=energy,
        forces=_numbers(_child(output, "forces")).reshape(-1, 3) * Hartree / Bohr,
        # pw.x counts pressure as positive, ASE tension.
        stress=-_numbers(_child(output, "stress")).reshape(3, 3) * Hartree / Bohr**3,
        cell=np.array([_numbers(_child(structure, f"cell/a{i}")) for i in (1, 2, 3)]) * Bohr,
        positions=np.array([_numbers(a) for a in structure.findall("atomic_positions/atom")])
        * Bohr,
        geometry_converged=converged,
        # A converged vc-relax ends with one more scf, in the basis of the final cell.
        n_scf=1 if optimised is None else len(steps) + int(converged),
    )
