"""Microseconds per atom beside motep's in the same run, relaxations per second, and a fit."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials.cfg_files import read_cfg, to_structures
from hullscreen.potentials.fit import TrainingSet, fit
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.mtp_files import read_mtp, write_mtp
from hullscreen.potentials.relaxation import RelaxationLimits, relax
from hullscreen.potentials.structures import from_atoms, to_atoms

ELEMENTS = ("Cu", "Au")
# motep takes one cell at a time; this many tell its time per atom.
CELLS_FOR_MOTEP = 40

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]


def stored(name):
    """Path of a stored file, None where there is none."""
    folder = os.environ.get("HULLSCREEN_REFERENCE_DATA")
    return Path(folder) / "mtp_reference" / "relax" / name if folder else None


@pytest.fixture(scope="module")
def cells():
    """Two hundred distorted Cu-Au cells of 1-12 atoms."""
    path = stored("relax_in.cfg")
    if path is not None:
        return to_structures(read_cfg(path))
    from ase.build import bulk

    rng = np.random.default_rng(0)
    frames = []
    for _ in range(200):
        atoms = bulk("Cu", "fcc", a=3.9) * (int(rng.integers(1, 13)), 1, 1)
        atoms.symbols = rng.choice(ELEMENTS, len(atoms))
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.05 * rng.normal(size=(len(atoms), 3))
        frames.append(atoms)
    return from_atoms(frames, ELEMENTS)


@pytest.fixture(scope="module")
def training(cells):
    """The cells with EMT's labels."""
    from ase.calculators.emt import EMT

    energies, forces, stresses = [], [], []
    for atoms in to_atoms(cells, ELEMENTS):
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stresses.append(atoms.get_stress(voigt=False))
    return TrainingSet(cells, np.array(energies), np.concatenate(forces), np.array(stresses))


@pytest.fixture(scope="module", params=[8, 16])
def potential(request, training):
    path = stored(f"CuAu_EMT_L{request.param:02d}.mtp")
    if path is not None:
        return read_mtp(path, ELEMENTS)
    start = untrained(request.param, ELEMENTS, cutoff=5.0, min_distance=2.0)
    return fit(start, training, max_iterations=4).potential


def seconds(action, repeats=3):
    """Shortest of some runs; the first call, which compiles, is not counted."""
    action()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


def test_evaluation_beside_motep(potential, cells, tmp_path):
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp as read_with_motep

    write_mtp(tmp_path / "a.mtp", potential)
    theirs = read_with_motep(tmp_path / "a.mtp")
    theirs.species = [29, 79]
    few = to_atoms(cells.take(range(CELLS_FOR_MOTEP)), ELEMENTS)
    n_atoms = sum(len(atoms) for atoms in few)

    def with_motep():
        return [engine.calculate(atoms)["energy"] for engine, atoms in engines]

    engines = [(MTP(theirs, engine="cext").engine, atoms) for atoms in few]
    started = time.perf_counter()
    with_motep()
    searching = (time.perf_counter() - started) / n_atoms
    # motep keeps neighbours of atoms that did not move: its kernels alone.
    motep = seconds(with_motep) / n_atoms
    ours = seconds(lambda: potential.evaluate(cells)) / len(cells.positions)
    graded = seconds(lambda: potential.evaluate(cells, "structures")) / len(cells.positions)
    print(
        f"\n{potential.basis.scalars.size} basis functions: {1e6 * ours:.1f} µs/atom "
        f"({1e6 * graded:.1f} with parameter gradients), motep's C {1e6 * motep:.1f} without and "
        f"{1e6 * searching:.1f} with its neighbour search: {motep / ours:.1f} and "
        f"{searching / ours:.1f} times ours"
    )
    np.testing.assert_allclose(
        potential.evaluate(cells).energies[:CELLS_FOR_MOTEP], with_motep(), atol=1e-9
    )


def test_relaxations(potential, cells):
    limits = RelaxationLimits(1e-4, 1e-3, max_evaluations=500)
    result = relax(potential, cells, limits)
    spent = seconds(lambda: relax(potential, cells, limits), repeats=1)
    one = seconds(lambda: potential.evaluate(cells))
    print(
        f"\n{potential.basis.scalars.size} basis functions: {len(cells) / spent:.0f} relaxations/s "
        f"to 1e-4 eV/Å and 1e-3 GPa, {result.evaluations.mean():.1f} evaluations each, "
        f"{spent / one / result.evaluations.mean():.2f} evaluation times per evaluation; "
        f"{result.outcome_counts()}"
    )


def test_steps_of_a_fit(potential, training):
    started = potential.with_parameters(potential.parameters * 1.01)
    steps = 2
    spent = seconds(lambda: fit(started, training, max_iterations=steps), repeats=1)
    one = seconds(lambda: potential.evaluate(training.structures))
    print(
        f"\n{potential.parameters.size} parameters, {len(training)} cells: "
        f"{spent / steps:.2f} s a step of the fit, {spent / steps / one:.0f} evaluations' time"
    )
