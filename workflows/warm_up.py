"""Every kernel compiled and every common basis generated, before the first campaign waits for it.

Compiled kernels belong to a type of processor: run this once on each type of node. They lie where
numba keeps them (``NUMBA_CACHE_DIR``, else beside the code, else in the user's cache directory).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hullscreen.potentials.active_set import select_active_set
from hullscreen.potentials.basis import generate_basis
from hullscreen.potentials.compiling import remove_stale
from hullscreen.potentials.fit import fit
from hullscreen.potentials.gradient_rows import energy_rows
from hullscreen.potentials.labels import TrainingSet
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential, untrained
from hullscreen.potentials.relaxation import RelaxationLimits, relax
from hullscreen.potentials.structures import Structures
from hullscreen.workflows.prototypes import PrototypePool
from hullscreen.workflows.same_basin import group_by_basin

LEVELS = (8, 10, 12, 14, 16, 18, 20)
"""Bases that are generated unless others are asked for."""

PARTS = (
    "prototypes",
    "energies, forces and stresses",
    "fits",
    "active sets",
    "relaxations",
    "duplicates",
)
"""What is compiled, in this order, before the bases."""

ELEMENTS = ("Cu", "Pd")


def warm_up(levels: Sequence[int] = LEVELS) -> Iterator[str]:
    """Compile by doing a little of everything; yields the name of each part when it is done."""
    remove_stale()
    structures = next(PrototypePool(ELEMENTS, max_atoms=4).batches()).structures
    yield PARTS[0]
    potential = _some_potential()
    found = potential.evaluate(structures)
    yield PARTS[1]
    training = TrainingSet(structures, found.energies, found.forces, found.stresses)
    fit(potential.with_parameters(1.01 * potential.parameters), training, max_iterations=1)
    yield PARTS[2]
    active_set = select_active_set(energy_rows(potential, structures))
    yield PARTS[3]
    limits = RelaxationLimits(max_evaluations=3)
    relaxed = relax(potential, structures, limits, active_set)
    yield PARTS[4]
    _group(relaxed.structures)
    yield PARTS[5]
    for level in levels:
        generate_basis(level)
        yield f"basis of level {level}"


def _some_potential() -> MomentTensorPotential:
    potential = untrained(8, ELEMENTS, cutoff=5.0, min_distance=2.0)
    parameters = potential.parameters
    parameters[potential.radial.size :] = 0.01
    return potential.with_parameters(parameters)


def _group(structures: Structures) -> None:
    group_by_basin(structures, np.zeros(len(structures)))
