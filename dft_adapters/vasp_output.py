"""What VASP leaves behind: results from ``vasprun.xml``, geometries from CONTCAR.

Energy is the free energy F (``e_fr_energy``, TOTEN), not the one extrapolated to zero smearing
(``e_0_energy``) that VASP users quote: forces and stress are derivatives of F, and a potential is
fitted to the three together. With first-order Methfessel–Paxton smearing both differ by less than
1 meV/atom where the smearing is sensible, and less still in formation energies.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hullscreen.dft_adapters.engine import CalculationError
from hullscreen.dft_adapters.model_hessian import shortest_distance
from hullscreen.dft_adapters.relaxation import SHORTEST_DISTANCE_ANGSTROM, VOLUME_RANGE
from hullscreen.potentials.structures import FloatArray

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class VaspOutput:
    """Numbers of the last ionic step of a run, atoms in POSCAR's order.

    Attributes
    ----------
    energy
        Free energy, eV.
    forces
        eV/Å, shape (n_atoms, 3).
    stress
        eV/Å³ with ASE's sign, shape (3, 3).
    cell, fractions
        Lattice vectors as rows in Å, and fractional coordinates, shapes (3, 3) and (n_atoms, 3).
    symbols
        Elements of the atoms.
    n_ionic_steps
        Ionic steps of this run, its energy evaluations.
    """

    energy: float
    forces: FloatArray
    stress: FloatArray
    cell: FloatArray
    fractions: FloatArray
    symbols: tuple[str, ...]
    n_ionic_steps: int


def parse_vasprun(path: Path) -> VaspOutput:
    """Read ``vasprun.xml`` of VASP 5.4 or 6.

    Raises
    ------
    CalculationError
        There is no such file (``"no_result"``), it is cut off or lacks something
        (``"unreadable_result"``), or the electrons of its last ionic step did not converge
        (``"unconverged_scf"``).
    """
    from pymatgen.io.vasp.outputs import UnconvergedVASPWarning, Vasprun

    directory = path.parent
    if not path.is_file():
        raise CalculationError(
            "no_result", f"VASP ended in {directory} without writing {path.name}", directory
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnconvergedVASPWarning)
            run = Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
        step = run.ionic_steps[-1]
        converged = run.converged_electronic
        output = _output(step, len(run.ionic_steps))
    except (SyntaxError, ValueError, LookupError, TypeError, AttributeError) as error:
        # What pymatgen's parser falls over in a file that is cut off or another program's; XML that
        # is none is a SyntaxError.
        raise CalculationError(
            "unreadable_result",
            f"{path} is not a complete result of VASP ({error or type(error).__name__}); it was "
            "interrupted",
            directory,
        ) from error
    if not converged:
        raise CalculationError(
            "unconverged_scf",
            f"VASP did not reach self-consistency in {directory}; raise smearing_ev or "
            "max_scf_steps under [dft.vasp]",
            directory,
        )
    return output


def _output(step: Mapping[str, Any], n_ionic_steps: int) -> VaspOutput:
    from ase.units import GPa

    structure: Structure = step["structure"]
    return VaspOutput(
        energy=float(step["e_fr_energy"]),
        forces=np.array(step["forces"], dtype=np.float64),
        # VASP counts pressure as positive, in kbar; ASE tension.
        stress=-0.1 * GPa * np.array(step["stress"], dtype=np.float64),
        cell=np.array(structure.lattice.matrix),
        fractions=np.array(structure.frac_coords),
        symbols=tuple(site.specie.symbol for site in structure),
        n_ionic_steps=n_ionic_steps,
    )


def n_steps_of(oszicar: str) -> int:
    """Ionic steps that the text of an OSZICAR tells of."""
    return len(re.findall(r"^\s*\d+ F=", oszicar, re.MULTILINE))


def sound_contcar(path: Path, start: Path) -> Structure | None:
    """Geometry of a CONTCAR from which a relaxation may go on; None if it must not be trusted.

    It must be whole (VASP may have been killed while it wrote it), hold the atoms of ``start``, and
    still be a crystal: finite, with a volume and distances within those of every relaxation here.
    """
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # half a file is expected here
            found = Poscar.from_str(text, read_velocities=False).structure
            begun = Poscar.from_file(start, check_for_potcar=False).structure
    except (OSError, ValueError, IndexError, TypeError, BadPoscarWarning):
        return None
    same_atoms = [s.specie.symbol for s in found] == [s.specie.symbol for s in begun]
    cell = np.array(found.lattice.matrix)
    if not (same_atoms and _is_whole(text, len(begun)) and np.isfinite(found.frac_coords).all()):
        return None
    ratio = abs(np.linalg.det(cell)) / begun.volume
    if not VOLUME_RANGE[0] < ratio < VOLUME_RANGE[1]:
        return None
    closest = shortest_distance(cell, np.array(found.cart_coords), SHORTEST_DISTANCE_ANGSTROM)
    return found if closest >= SHORTEST_DISTANCE_ANGSTROM else None


def _is_whole(text: str, n_atoms: int) -> bool:
    """Whether the last coordinates have as many digits as the first, and the line ends."""
    lines = text.splitlines(keepends=True)
    header = next(
        (i for i, line in enumerate(lines) if line.strip().lower().startswith(("direct", "cart"))),
        None,
    )
    if header is None:
        return False
    coordinates = lines[header + 1 : header + 1 + n_atoms]
    shapes = {
        tuple(len(word.partition(".")[2]) for word in line.split()[:3]) for line in coordinates
    }
    return len(coordinates) == n_atoms and len(shapes) == 1 and coordinates[-1].endswith("\n")
