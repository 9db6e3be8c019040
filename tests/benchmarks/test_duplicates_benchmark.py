"""Relaxed structures that are one crystal are found at thousands a second, and no others."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hullscreen.potentials.structures import Structures, concatenate, join, to_atoms
from hullscreen.workflows.prototypes import PrototypePool
from hullscreen.workflows.same_basin import BasinTolerances, group_by_basin

pytestmark = pytest.mark.benchmark

FULL = os.environ.get("HULLSCREEN_FULL_BENCHMARKS") == "1"
ELEMENTS = ("Cu", "Ni", "Pt")
# Up to 8 atoms, colours kept apart: G. Hart, R. Forcade, Phys. Rev. B 77, 224115 (2008).
FCC_TERNARIES = 9808
PLANTED = 300
# What relaxations into one basin leave, in Å and relative; a fifth and a tenth of the tolerances.
NOISE, STRAIN = 0.01, 0.001
MEGABYTE = 2**20


def pool_of(lattices, max_atoms):
    pool = PrototypePool(ELEMENTS, lattices=lattices, max_atoms=max_atoms)
    return concatenate(batch.structures for batch in pool.batches(10_000))


def of_one_volume(structures):
    """The same structures at 12 Å³ per atom."""
    factors = np.cbrt(12.0 * structures.n_atoms / structures.volumes)
    return Structures(
        structures.cells * factors[:, None, None],
        structures.positions * np.repeat(factors, structures.n_atoms)[:, None],
        structures.species,
        structures.offsets,
    )


@pytest.fixture(scope="module")
def ternaries():
    """All inequivalent fcc ternaries up to 8 atoms, undistorted, of one volume per atom."""
    structures = of_one_volume(pool_of(("fcc",), 8))
    assert len(structures) == FCC_TERNARIES
    group_by_basin(structures.take(range(20)), np.zeros(20))  # Compiles.
    return structures


def disguised(structure, rng, noise=NOISE, strain=STRAIN):
    """Another supercell, turned or reflected, shifted, with atoms in another order, and noisy."""
    cell, positions, species = structure
    diagonal = rng.permutation([1, 1, int(rng.integers(1, 4))])
    matrix = np.diag(diagonal) + np.triu(rng.integers(-2, 3, (3, 3)), 1)
    shifts = np.array(list(np.ndindex(*diagonal))) @ cell
    big = matrix @ cell
    xyz = (positions[None] + shifts[:, None]).reshape(-1, 3) + rng.normal(size=3)
    turn = Rotation.random(random_state=rng).as_matrix() * rng.choice([-1.0, 1.0])
    bend = np.eye(3) + rng.uniform(-strain, strain, (3, 3)) / 3
    xyz = xyz @ turn @ bend + rng.uniform(-noise, noise, xyz.shape) / np.sqrt(3)
    order = rng.permutation(len(xyz))
    return big @ turn @ bend, xyz[order], np.tile(species, len(shifts))[order]


@pytest.fixture(scope="module")
def planted(ternaries):
    """The ternaries, 300 of them once more in disguise; and which those are."""
    rng = np.random.default_rng(3)
    originals = rng.choice(len(ternaries), PLANTED, replace=False)
    copies = join(disguised(ternaries.one(int(i)), rng) for i in originals)
    return concatenate([ternaries, copies]), originals


def timed(structures, energies):
    start = time.process_time()
    labels = group_by_basin(structures, energies)
    spent = time.process_time() - start
    return labels, spent


def keys_that_do_not_help(n):
    return np.zeros(n)


def realistic(n):
    """Energies as a screen finds them, over 0.1 eV/atom."""
    return np.random.default_rng(0).uniform(-3.6, -3.5, n)


@pytest.mark.parametrize("energies_of", [keys_that_do_not_help, realistic])
def test_every_planted_duplicate_is_found_and_nothing_else(planted, energies_of):
    structures, originals = planted
    energies = energies_of(FCC_TERNARIES)
    rng = np.random.default_rng(4)
    # Two relaxations into one basin; below nought, so that the representative changes at times.
    close = energies[originals] + rng.uniform(-1e-5, 1e-5, PLANTED)
    energies = np.concatenate([energies, close if energies.any() else np.zeros(PLANTED)])
    labels, spent = timed(structures, energies)
    found = labels[originals] == labels[FCC_TERNARIES:]
    print(
        f"\n{energies_of.__name__}: {len(labels)} structures in {spent:.2f} s of processor time, "
        f"{len(labels) / spent:.0f}/s; {found.sum()} of {PLANTED} duplicates found, "
        f"{len(np.unique(labels))} of {FCC_TERNARIES} crystals"
    )
    assert found.all()
    assert len(np.unique(labels)) == FCC_TERNARIES


def test_beside_pymatgen(ternaries):
    """Both sort a part into groups; every fifth structure is there once more, in disguise."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.io.ase import AseAtomsAdaptor

    rng = np.random.default_rng(5)
    originals = rng.choice(len(ternaries), 100, replace=False)
    copies = [disguised(ternaries.one(int(i)), rng) for i in originals[:20]]
    part = concatenate([ternaries.take(originals), join(copies)])
    labels, _ = timed(part, np.zeros(len(part)))
    repeats = 20
    ours = sum(timed(part, np.zeros(len(part)))[1] for _ in range(repeats)) / repeats
    frames = [AseAtomsAdaptor.get_structure(frame) for frame in to_atoms(part, ELEMENTS)]
    start = time.process_time()
    groups = StructureMatcher(scale=False).group_structures(frames)
    theirs = time.process_time() - start
    print(
        f"\n{len(part)} structures: {len(part) / ours:.0f}/s, {len(np.unique(labels))} crystals; "
        f"StructureMatcher {len(part) / theirs:.0f}/s, {len(groups)}; ours takes "
        f"{theirs / ours:.0f} times less"
    )
    assert len(np.unique(labels)) == 100
    # Hundreds were seen.
    assert theirs > 5 * ours


@pytest.mark.parametrize("seed", range(4))
def test_keys_keep_nothing_apart_that_the_comparison_joins(ternaries, seed, monkeypatch):
    # Disguises up to the tolerances: some match and some do not, with and without keys the same.
    from hullscreen.workflows import crystal_groups, same_basin

    rng = np.random.default_rng(seed)
    tolerances = BasinTolerances()
    chosen = ternaries.take(rng.choice(len(ternaries), 150, replace=False))
    copies = [
        disguised(chosen.one(i), rng, noise=share * tolerances.position, strain=share * 0.02)
        for i in range(len(chosen))
        for share in rng.uniform(0.5, 1.5, 2)
    ]
    both = concatenate([chosen, join(copies)])
    with_keys = group_by_basin(both, np.zeros(len(both)))

    def no_distances(cells, *_):
        starts = np.zeros((len(cells), 2), dtype=np.int64)
        return np.ones(len(cells)), np.zeros(1, dtype=np.uint16), starts

    monkeypatch.setattr(same_basin, "distance_keys", no_distances)
    assert crystal_groups.distance_keys is not no_distances
    without_keys = group_by_basin(both, np.zeros(len(both)))
    assert np.array_equal(with_keys, without_keys)
    n_groups = len(np.unique(with_keys))
    assert len(chosen) < n_groups < len(both) - 50


def memory(what):
    """``VmRSS`` or its peak ``VmHWM`` of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


@pytest.mark.slow
@pytest.mark.parametrize("helpless", [False, True])
def test_many_structures_take_bounded_memory(helpless):
    """A pool of fcc, bcc and hcp; full size: the 195,483 up to 10 atoms."""
    structures = pool_of(("fcc", "bcc", "hcp"), 10 if FULL else 8)
    n = len(structures)
    held = structures.positions.nbytes + structures.cells.nbytes + structures.species.nbytes
    energies = np.zeros(n) if helpless else realistic(n)
    Path("/proc/self/clear_refs").write_text("5")  # The peak counts from here on.
    before = memory("VmRSS")
    labels, spent = timed(structures, energies)
    more = memory("VmHWM") - before
    print(
        f"\n{n} structures ({held / MEGABYTE:.0f} MB) in {spent:.1f} s of processor time, "
        f"{n / spent:.0f}/s; {len(np.unique(labels))} crystals; memory at most "
        f"{more / MEGABYTE:.0f} MB more"
    )
    # All members of the pool differ.
    assert len(np.unique(labels)) == n
    # Arrays of primitive cells, keys of 40 bytes an atom, and room for temporaries.
    assert more < 4 * held + 64 * MEGABYTE
