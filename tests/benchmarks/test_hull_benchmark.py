"""How long a hull of a whole campaign takes beside pymatgen's on a small part of it."""

import time

import numpy as np
import pytest

from hullscreen.workflows.hull import convex_hull


@pytest.mark.benchmark
def test_hull_of_400_000_ternary_entries():
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    rng = np.random.default_rng(0)
    counts = rng.multinomial(11, np.full(3, 1 / 3), 400_000)
    counts[:3] = np.eye(3) * 11
    fractions = counts / 11
    energies = rng.normal(0.0, 0.05, len(counts)) - (1 - (fractions**2).sum(axis=1))
    start = time.perf_counter()
    hull = convex_hull(fractions, energies)
    ours = time.perf_counter() - start

    part = 2000
    entries = [
        PDEntry(
            Composition({s: int(n) for s, n in zip(("Al", "Ni", "Ti"), row, strict=True) if n}),
            float(energy * row.sum()),
        )
        for row, energy in zip(counts[:part], energies[:part], strict=True)
    ]
    start = time.perf_counter()
    diagram = PhaseDiagram(entries)
    for entry in entries:
        diagram.get_e_above_hull(entry)
    theirs = time.perf_counter() - start
    print(
        f"\nhull of {len(counts)} entries: {ours:.3f} s, {hull.stable.sum()} stable; pymatgen on "
        f"{part}: {theirs:.3f} s; per entry {theirs / part / (ours / len(counts)):.0f} times ours"
    )
    assert (hull.energies_above_hull >= 0).all()
