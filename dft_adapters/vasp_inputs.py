"""INCAR, KPOINTS, POSCAR and POTCAR of a calculation, from pymatgen's input sets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hullscreen.dft_adapters.file_engine import Attempt, Task
from hullscreen.dft_adapters.kpoints import kpoint_grid
from hullscreen.dft_adapters.vasp_potcars import (
    find_potcars,
    input_set_class,
    potcar_symbols,
    unchanged_text,
)
from hullscreen.dft_adapters.vasp_settings import WHERE, VaspSettings
from hullscreen.potentials.errors import SettingsError
from hullscreen.potentials.structures import FloatArray, IndexArray

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.io.vasp.inputs import Kpoints, Poscar

# What every calculation sets on top of the input set, and why. None removes the set's entry.
SAME_FOR_ALL: Mapping[str, tuple[Any, str]] = {
    "PREC": ("Accurate", "forces and stresses without wrap-around errors"),
    "LREAL": (False, "projection in reciprocal space: exact, and quick for cells this small"),
    "LASPH": (True, "aspherical terms inside the spheres: d metals need them"),
    "LDAU": (None, "the set's U is for oxides and fluorides"),
    "LDAUU": (None, "see LDAU"),
    "LDAUJ": (None, "see LDAU"),
    "LDAUL": (None, "see LDAU"),
    "LDAUTYPE": (None, "see LDAU"),
    "LDAUPRINT": (None, "see LDAU"),
    "EDIFF_PER_ATOM": (None, "EDIFF is given for the cell"),
    "LMAXMIX": (None, "for charge densities that are read again; none is"),
    "LORBIT": (None, "no projections on orbitals: large files that nobody reads"),
    "LWAVE": (False, "wave functions are not read again"),
    "LCHARG": (False, "nor is the charge density"),
    "KSPACING": (None, "a KPOINTS file instead, so that the grid cannot change on the way"),
}
# Tags that do not change converged energies: how they are reached, and on how many processors.
# ISYM and SYMPREC only decide which k points count as equal; the grid stays. custodian may change
# these, and a user may set them without leaving the campaign's settings.
HARMLESS = frozenset(
    {
        # how electrons and atoms reach their ground state
        *("ALGO", "IALGO", "ISEARCH", "TIME", "NELM", "NELMIN", "NELMDL", "ISTART", "ICHARG"),
        *("IMIX", "AMIX", "BMIX", "AMIN", "AMIX_MAG", "BMIX_MAG", "MAXMIX", "WC", "INIMIX"),
        *("IBRION", "POTIM", "SMASS", "NFREE", "NSW", "EDIFFG", "NBANDS", "ISYM", "SYMPREC"),
        # on how many processors, and what is written
        *("NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LSCALAPACK", "LSCALU"),
        *("LWAVE", "LCHARG", "NWRITE", "LORBIT", "SYSTEM"),
    }
)
INCAR_STATIC = "INCAR.static"
INCAR_RELAX = "INCAR.relax"
INPUTS = "inputs"
POTCAR_SPEC = "POTCAR.spec"


@dataclass(frozen=True)
class Arrangement:
    """How a structure stands in POSCAR: elements together, and vectors that are right-handed.

    Attributes
    ----------
    order
        Index in the structure of each atom of POSCAR, shape (n_atoms,).
    swapped
        Whether the second and third lattice vector are exchanged: VASP refuses left-handed cells.
    """

    order: IndexArray
    swapped: bool

    @classmethod
    def of(cls, atoms: Atoms) -> Arrangement:
        """That of a structure; atoms of one element keep their order."""
        order = np.argsort(np.array(atoms.symbols), kind="stable").astype(np.int64)
        return cls(order, bool(np.linalg.det(atoms.cell[:]) < 0.0))

    def vectors(self, cell: FloatArray) -> FloatArray:
        """Lattice vectors in the other order; its own inverse. Shape (3, 3)."""
        return np.array(cell)[[0, 2, 1] if self.swapped else [0, 1, 2]]

    def restored(self, rows: FloatArray) -> FloatArray:
        """Rows per atom of POSCAR, back in the order of the structure, shape (n_atoms, 3)."""
        back = np.empty_like(rows)
        back[self.order] = rows
        return back


def poscar_of(atoms: Atoms) -> Poscar:
    """POSCAR of a structure as its `Arrangement` says, with all digits."""
    from pymatgen.core import Lattice, Structure
    from pymatgen.io.vasp.inputs import Poscar

    arrangement = Arrangement.of(atoms)
    structure = Structure(
        Lattice(arrangement.vectors(np.array(atoms.cell[:]))),
        [atoms.symbols[i] for i in arrangement.order],
        np.array(atoms.positions)[arrangement.order],
        coords_are_cartesian=True,
    )
    return Poscar(structure, comment=atoms.get_chemical_formula())


def incar_text(settings: VaspSettings, atoms: Atoms, task: Task, *, static: bool) -> str:
    """INCAR of a single point (``static``, also the last run of a relaxation) or of a relaxation.

    Raises
    ------
    SettingsError
        The input set, or ``extra_incar``, does not fit metals or pymatgen does not take it.
    """
    from pymatgen.io.vasp.sets import BadInputSetWarning

    user = {tag: value for tag, (value, _) in SAME_FOR_ALL.items()}
    user |= {
        "ENCUT": settings.cutoff_ev,
        "ISMEAR": settings.smearing_order,
        "SIGMA": settings.smearing_ev,
        "EDIFF": settings.scf_threshold_ev,
        "NELM": settings.max_scf_steps,
    }
    user |= _ionic(atoms, task, static=static) | _spin(settings, atoms)
    user.update(settings.extra_incar)
    moments = user.pop("MAGMOM")
    structure = poscar_of(atoms).structure
    if moments is not None:
        structure.add_site_property("magmom", moments)
    else:
        user["MAGMOM"] = None
    with warnings.catch_warnings():
        # It warns of every deviation from the Materials Project's own choices.
        warnings.simplefilter("ignore", BadInputSetWarning)
        incar = input_set_class(settings.input_set)(
            structure,
            user_incar_settings=user,
            user_kpoints_settings=cast("Any", kpoints_of(settings, atoms)),
            user_potcar_functional=cast("Any", settings.potcar_functional),
            sort_structure=False,
        ).incar
    if int(incar.get("ISMEAR", 1)) < 0:
        raise SettingsError(
            f"{WHERE}: {settings.input_set} gives ISMEAR = {incar['ISMEAR']}, tetrahedra, which "
            "are wrong for the forces of metals; set smearing_order to 1"
        )
    return incar.get_str(sort_keys=True, pretty=True) + "\n"


def _ionic(atoms: Atoms, task: Task, *, static: bool) -> dict[str, Any]:
    """Tags of what moves."""
    if static:
        # ISIF = 2: the stress is computed, nothing moves.
        return {"NSW": 0, "IBRION": -1, "ISIF": 2, "EDIFFG": None, "POTIM": None}
    # VASP looks at forces in eV/Å and at stress times volume in eV per atom alike.
    per_atom = task.stress_tolerance * atoms.get_volume() / len(atoms)
    return {
        "NSW": max(1, task.max_steps),
        "IBRION": 2,  # conjugate gradients: needs no good start
        "ISIF": 3,  # cell and positions
        "EDIFFG": -float(f"{min(task.force_tolerance, per_atom):.3g}"),
        "POTIM": None,
    }


def _spin(settings: VaspSettings, atoms: Atoms) -> dict[str, Any]:
    """ISPIN, and a starting moment for each atom of POSCAR if it is polarised."""
    magnetic = {element for element, moment in settings.initial_moments.items() if moment}
    if not settings.spin or not set(atoms.symbols) & magnetic:
        return {"ISPIN": 1, "MAGMOM": None}
    order = Arrangement.of(atoms).order
    return {
        "ISPIN": 2,
        "MAGMOM": [settings.initial_moments.get(atoms.symbols[i], 0.0) for i in order],
    }


def kpoints_of(settings: VaspSettings, atoms: Atoms) -> Kpoints:
    """KPOINTS: an explicit grid around Γ, for the start cell and all that becomes of it."""
    from pymatgen.io.vasp.inputs import Kpoints

    cell = Arrangement.of(atoms).vectors(np.array(atoms.cell[:]))
    return Kpoints.gamma_automatic(kpoint_grid(cell, settings.kpoint_spacing))


def write_inputs(
    settings: VaspSettings, atoms: Atoms, directory: Path, task: Task, attempt: Attempt
) -> list[str]:
    """Write all input files below ``directory`` and return their names.

    A relaxation that goes on begins at the geometry it had reached, with the grid of its start.
    """
    folder = directory / INPUTS
    folder.mkdir(exist_ok=True)
    begun = atoms.copy()
    if attempt.reached is not None:
        begun.set_cell(attempt.reached.cell)
        begun.set_positions(attempt.reached.positions)
    texts = {
        INCAR_STATIC: incar_text(settings, atoms, task, static=True),
        "KPOINTS": str(kpoints_of(settings, atoms)),
        "POSCAR": poscar_of(begun).get_str(significant_figures=16),
    }
    if task.kind == "relax":
        texts[INCAR_RELAX] = incar_text(settings, atoms, task, static=False)
    elements = sorted(set(atoms.symbols))
    if settings.potcar_spec:
        symbols = potcar_symbols(settings)
        texts[POTCAR_SPEC] = "".join(f"{symbols.get(e, e)}\n" for e in elements)
    else:
        potcars = find_potcars(settings, elements)
        texts["POTCAR"] = "".join(unchanged_text(potcars[e]).rstrip("\n") + "\n" for e in elements)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [f"{INPUTS}/{name}" for name in texts]


def changed_settings(before: str, after: str) -> list[str]:
    """What of an INCAR that changes energies was changed, as phrases; empty if nothing was.

    EDIFF may become smaller and LREAL false: both only make energies more exact.
    """
    from pymatgen.io.vasp.inputs import Incar

    old, new = Incar.from_str(before), Incar.from_str(after)
    changes = []
    for tag in sorted(set(old) | set(new)):
        was, became = old.get(tag), new.get(tag)
        if tag == "EDIFF":
            harmless = became is not None and was is not None and became <= was
        elif tag == "LREAL":
            harmless = not became or was == became
        else:
            harmless = tag in HARMLESS
        if not harmless and not _same(was, became):
            changes.append(f"{tag} was {was}, became {became}")
    return changes


def _same(was: Any, became: Any) -> bool:
    if isinstance(was, (int, float)) and isinstance(became, (int, float)):
        return math.isclose(was, became, rel_tol=1e-9)
    return bool(was == became)
