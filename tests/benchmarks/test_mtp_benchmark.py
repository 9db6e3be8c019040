"""Microseconds per atom beside motep's in the same run.

Two hundred Cu-Au cells of 2-12 atoms with about 38 neighbours, in one thread. Times are CPU times;
those of compiling are not counted.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials.cfg_files import read_cfg, to_structures
from hullscreen.potentials.moment_tensor_potential import untrained
from hullscreen.potentials.mtp_files import write_mtp
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
    """Distorted Cu-Au cells: the stored ones, or others like them."""
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


def some_potential(level):
    """A potential of the level with parameters of no meaning: they do not change the cost."""
    potential = untrained(level, ELEMENTS, cutoff=5.0, min_distance=2.0)
    parameters = potential.parameters
    linear = parameters[potential.radial.size :]
    linear[:] = np.random.default_rng(level).normal(size=linear.size)
    return potential.with_parameters(parameters)


def seconds(action, repeats=10):
    """Least CPU time of some runs; the first call, which compiles, is not counted."""
    action()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("level", [8, 16, 22])
def test_evaluation_beside_motep(level, cells, tmp_path):
    from motep.calculator import MTP
    from motep.io.mlip.mtp import read_mtp as read_with_motep

    potential = some_potential(level)
    write_mtp(tmp_path / "a.mtp", potential)
    theirs = read_with_motep(tmp_path / "a.mtp")
    theirs.species = [29, 79]
    few = to_atoms(cells.take(range(CELLS_FOR_MOTEP)), ELEMENTS)
    n_atoms = sum(len(atoms) for atoms in few)
    engines = [(MTP(theirs, engine="cext").engine, atoms) for atoms in few]

    def with_ready_lists():
        return [engine.calculate(atoms)["energy"] for engine, atoms in engines]

    def as_users_call_it():
        energies = []
        for atoms in few:
            atoms.calc = MTP(theirs, engine="cext")
            energies.append(atoms.get_potential_energy())
        return energies

    n = len(cells.positions)
    ours = seconds(lambda: potential.evaluate(cells)) / n
    graded = seconds(lambda: potential.evaluate(cells, "structures")) / n
    # Its engines keep the neighbours of atoms that did not move: these are its kernels alone.
    ready = seconds(with_ready_lists, 3) / n_atoms
    called = seconds(as_users_call_it, 1) / n_atoms
    print(
        f"\nlevel {level}: {1e6 * ours:.2f} µs/atom ({graded / ours - 1:+.0%} with the gradients "
        f"that grades need); motep's C {1e6 * ready:.0f} with ready neighbours, "
        f"{1e6 * called:.0f} as called: {ready / ours:.1f} and {called / ours:.0f} times ours"
    )
    found = potential.evaluate(cells).energies[:CELLS_FOR_MOTEP]
    np.testing.assert_allclose(found, with_ready_lists(), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("level", [8, 16])
def test_cost_is_linear(level, cells):
    potential = some_potential(level)
    costs = {}
    for n_cells in (100, 1_000, 10_000, 100_000):
        many = cells.take(np.arange(n_cells) % len(cells))
        repeats = 20 if n_cells < 10_000 else 2
        costs[n_cells] = seconds(lambda: potential.evaluate(many), repeats) / len(many.positions)  # noqa: B023
    shown = ", ".join(f"{1e6 * cost:.2f} for {n_cells:,}" for n_cells, cost in costs.items())
    print(f"\nlevel {level}: µs/atom {shown} cells")


def test_large_cells():
    from ase.build import bulk

    potential = some_potential(16)
    costs = {}
    for n in (2, 4, 8, 16):
        atoms = bulk("Cu", cubic=True, a=3.7) * (n, n, n)
        atoms.rattle(0.05, seed=0)
        atoms.symbols[::3] = "Au"
        one = from_atoms([atoms], ELEMENTS)
        costs[len(atoms)] = seconds(lambda: potential.evaluate(one), 3) / len(atoms)  # noqa: B023
    shown = ", ".join(f"{1e6 * cost:.2f} for {n:,}" for n, cost in costs.items())
    print(f"\nlevel 16, one cell, 54 neighbours: µs/atom {shown} atoms")
