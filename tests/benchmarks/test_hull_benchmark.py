"""How long a hull of a whole campaign takes, and that it is pymatgen's."""

import time

import numpy as np
import pytest

from hullscreen.workflows.hull import convex_hull

N_ENTRIES, N_SAMPLED = 400_000, 2000
# Absolute, eV/atom: sums of the same energies in another order leave 1e-15.
SAME = 1e-9


def ternary_entries(rng):
    """Atom counts of cells of 1 to 11 atoms, most of them large, and energies in eV/atom."""
    sizes = rng.integers(1, 12, (N_ENTRIES, 3)).max(axis=1)
    counts = rng.multinomial(sizes, np.full(3, 1 / 3))
    counts[:3] = np.eye(3)
    fractions = counts / counts.sum(axis=1, keepdims=True)
    elements = np.array([-3.5, -4.4, -5.8])
    mixing = -0.3 * (1 - (fractions**2).sum(axis=1))
    return counts, fractions, fractions @ elements + mixing + rng.normal(0.0, 0.05, N_ENTRIES)


def lowest_of_each_composition(counts, energies):
    """Entries that alone decide the hull, found in a way of their own."""
    lowest = {}
    reduced = counts // np.gcd.reduce(counts, axis=1)[:, None]
    for i, row in enumerate(map(tuple, reduced.tolist())):
        if row not in lowest or energies[i] < energies[lowest[row]]:
            lowest[row] = i
    return sorted(lowest.values())


@pytest.mark.benchmark
def test_hull_of_400_000_ternary_entries():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    rng = np.random.default_rng(0)
    counts, fractions, energies = ternary_entries(rng)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        hull = convex_hull(fractions, energies)
        seconds.append(time.process_time() - start)
    ours = min(seconds)

    def entry(i):
        amounts = dict(zip(("Cu", "Ni", "Pt"), counts[i].tolist(), strict=True))
        return PDEntry(Composition(amounts), float(energies[i] * counts[i].sum()))

    sampled = rng.choice(N_ENTRIES, N_SAMPLED, replace=False)
    corners = lowest_of_each_composition(counts, energies)
    entries = [entry(i) for i in sampled]
    start = time.process_time()
    diagram = PhaseDiagram([*(entry(i) for i in corners), *entries])
    above = np.array([diagram.get_e_above_hull(one) for one in entries])
    theirs = time.process_time() - start
    difference = np.abs(above - hull.energies_above_hull[sampled]).max()
    ratio = theirs / N_SAMPLED / (ours / N_ENTRIES)
    print(
        f"\nhull of {N_ENTRIES} entries of {len(corners)} compositions: {ours:.3f} s of processor "
        f"time, {hull.stable.sum()} stable; pymatgen on {N_SAMPLED} of them {theirs:.2f} s, an "
        f"entry {ratio:.0f} times ours; largest difference {difference:.1e} eV/atom"
    )
    assert difference < SAME
    lowest = np.array(corners)[hull.energies_above_hull[corners] <= SAME]
    assert np.array_equal(np.flatnonzero(hull.stable), lowest)
    # Five hundred was seen.
    assert ratio > 50
