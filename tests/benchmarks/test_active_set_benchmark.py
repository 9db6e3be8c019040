"""Seconds to choose an active set, beside motep's in the same run, and what grades cost."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from hullscreen.potentials.active_set import NOT_SET, select_active_set, select_candidates
from hullscreen.potentials.cfg_files import read_cfg, to_structures
from hullscreen.potentials.gradient_rows import GradientRows
from hullscreen.potentials.mtp_files import read_mtp

pytestmark = [pytest.mark.benchmark, pytest.mark.slow, pytest.mark.reference]


@pytest.fixture(scope="module", params=["08", "16"])
def pool(request):
    """Potential, labelled cells and candidates."""
    data = os.environ.get("HULLSCREEN_REFERENCE_DATA")
    if not data:
        pytest.skip("HULLSCREEN_REFERENCE_DATA is not set")
    folder = Path(data) / "mtp_reference" / "relax"
    return (
        read_mtp(folder / f"CuAu_EMT_L{request.param}.mtp"),
        to_structures(read_cfg(folder / "train_CuAu_EMT_200.cfg")),
        to_structures(read_cfg(folder / "cand_1000.cfg")),
    )


def shortest(action, repeats=5):
    """Seconds of the quickest run, after one that compiles, and the result."""
    result = action()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times), result


def volume(rows):
    return np.linalg.slogdet(rows).logabsdet


def test_selection_beside_motep(pool):
    from motep.grade.maxvol import MaxVol

    potential, labelled, candidates = pool

    def whole():
        active = select_active_set(GradientRows(potential, labelled))
        return select_candidates(active, GradientRows(potential, candidates))

    spent, chosen = shortest(whole)
    first = np.concatenate(list(GradientRows(potential, labelled)))
    second = np.concatenate(list(GradientRows(potential, candidates)))
    active = select_active_set(first)
    growing, grown = shortest(lambda: select_active_set(second, active))
    rows = np.concatenate([first, second])
    ours, found = shortest(lambda: select_active_set(rows))
    # The rows are linearly dependent, where only motep's copy of MLIP's algorithm works.
    theirs, peer = shortest(lambda: MaxVol(algorithm="mlip").run(rows), repeats=1)
    print(
        f"\n{rows.shape[1]} parameters: {spent:.3f} s from {len(labelled)} + {len(candidates)} "
        f"cells to {len(chosen)} chosen ones, {growing:.3f} s of them for MaxVol on the latter; "
        f"all rows at once {ours:.3f} s, motep {theirs:.3f} s: {theirs / ours:.1f} times ours; "
        f"log|det| {volume(found.rows):.2f}, motep {volume(peer.submatrix):.2f}, "
        f"in two steps {volume(grown.rows):.2f}"
    )
    assert volume(found.rows) >= volume(peer.submatrix)
    assert len(chosen) == np.count_nonzero(grown.sources != NOT_SET)


@pytest.mark.parametrize("n_parameters", [222, 864])
def test_grades_are_one_matrix_product(n_parameters):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, n_parameters))
    active = select_active_set(rng.normal(size=(n_parameters, n_parameters)))
    product, _ = shortest(lambda: rows @ active.inverse)
    grades, _ = shortest(lambda: active.grades(rows))
    print(
        f"\n{n_parameters} parameters: grades of 1,000 rows {1e3 * grades:.2f} ms, "
        f"{grades / product:.2f} times the matrix product alone"
    )
    # Room for a busy machine: 1.1 to 1.5 was seen.
    assert grades < 5 * product


def test_what_grades_cost_beside_forces(pool):
    potential, labelled, candidates = pool
    active = select_active_set(GradientRows(potential, labelled))
    forces, _ = shortest(lambda: potential.evaluate(candidates))
    rows, result = shortest(lambda: potential.evaluate(candidates, "structures"))
    grading, _ = shortest(lambda: active.grades(result.gradients / candidates.n_atoms[:, None]))
    print(
        f"\n{potential.parameters.size} parameters, {len(candidates)} cells: gradients cost "
        f"{100 * (rows / forces - 1):.0f} % on top of forces, grades from them "
        f"{100 * grading / forces:.0f} %"
    )


def test_a_hundred_thousand_candidates():
    rng = np.random.default_rng(0)
    n, size = 222, 4000
    mixing = np.linalg.qr(rng.normal(size=(n, n)))[0] * np.geomspace(100.0, 0.01, n)

    class Pool:
        """Blocks made anew at every turn: never all in memory."""

        def __iter__(self):
            return (np.random.default_rng(k).normal(size=(size, n)) @ mixing for k in range(25))

    making, _ = shortest(lambda: [None for _ in Pool()], repeats=1)
    spent, active = shortest(lambda: select_active_set(Pool()), repeats=1)
    highest = max(active.grades(block).max() for block in Pool())
    print(
        f"\n{25 * size} candidates of {n} parameters in blocks of {size}: {spent:.1f} s, a turn "
        f"through the blocks alone {making:.1f} s; highest grade {highest:.6f}"
    )
    assert highest <= 1.001 + 1e-9
