"""Each operation on lanes against numpy, in compiled code."""

import numpy as np
import pytest
from numba import njit

from hullscreen.potentials.lanes import (
    WIDTH,
    aligned,
    below,
    first_bits,
    keep,
    least_of,
    lesser,
    load,
    n_bits,
    pack,
    spread,
    square_root,
    store,
    store_index,
    total,
)

LEFT = np.random.default_rng(0).uniform(0.5, 2.0, 3 * WIDTH)
RIGHT = np.random.default_rng(1).uniform(0.5, 2.0, 3 * WIDTH)


@njit
def _arithmetic(left, right, start, out):
    a, b = load(left, start), load(right, start)
    store(out, 0, a + b)
    store(out, WIDTH, a - b)
    store(out, 2 * WIDTH, a * b)
    store(out, 3 * WIDTH, a / b)
    store(out, 4 * WIDTH, 2.0 * a + 1.0)
    store(out, 5 * WIDTH, 1.0 / a - 3.0)
    store(out, 6 * WIDTH, square_root(a))
    store(out, 7 * WIDTH, lesser(a, b))
    c = spread(0.25)
    c += a
    c *= b
    store(out, 8 * WIDTH, c)


# Lanes may begin anywhere in an array, not only at multiples of their number.
@pytest.mark.parametrize("start", [0, 1, 5, 8, 16])
def test_arithmetic(start):
    out = np.full((10, WIDTH), np.nan)
    _arithmetic(LEFT, RIGHT, start, out)
    a, b = LEFT[start : start + WIDTH], RIGHT[start : start + WIDTH]
    expected = [
        a + b,
        a - b,
        a * b,
        a / b,
        2 * a + 1,
        1 / a - 3,
        np.sqrt(a),
        np.minimum(a, b),
        (0.25 + a) * b,
    ]
    # Products and sums may be fused: one rounding less.
    np.testing.assert_allclose(out[:9], expected, rtol=1e-15, atol=1e-15)
    assert np.isnan(out[9]).all()


@njit
def _selection(values, bits, out):
    lanes = load(values, 0)
    store(out, 0, keep(lanes, bits))
    store(out, WIDTH, pack(lanes, bits))
    return n_bits(bits)


@pytest.mark.parametrize("bits", [0, 1, 0b10000000, 0b10110010, 0b11111111])
def test_selection(bits):
    out = np.empty(2 * WIDTH)
    values = np.arange(1.0, WIDTH + 1)
    chosen = np.array([bits >> i & 1 for i in range(WIDTH)], dtype=bool)
    assert _selection(values, bits, out) == chosen.sum()
    np.testing.assert_array_equal(out[:WIDTH], np.where(chosen, values, 0.0))
    np.testing.assert_array_equal(out[WIDTH : WIDTH + chosen.sum()], values[chosen])


def test_what_is_not_kept_may_be_nan():
    values = np.full(WIDTH, np.nan)
    values[2] = 3.0
    out = np.empty(2 * WIDTH)
    _selection(values, 0b100, out)
    np.testing.assert_array_equal(out[:WIDTH], [0, 0, 3, 0, 0, 0, 0, 0])


@njit
def _bits(count):
    return first_bits(count)


@njit
def _below(values, limit):
    return below(load(values, 0), limit)


@pytest.mark.parametrize("count", [-20, -1, 0, 1, 3, 7, 8, 9, 1000])
def test_first_bits(count):
    assert _bits(count) == (1 << min(max(count, 0), WIDTH)) - 1


def test_below():
    values = np.array([1.0, 3.0, np.nan, -np.inf, 2.0, np.inf, 1.999, 0.0])
    assert _below(values, 2.0) == 0b11001001


@njit
def _reductions(values):
    return total(load(values, 0)), least_of(load(values, 0))


def test_reductions():
    found = _reductions(LEFT)
    # Sums may be reordered.
    assert found[0] == pytest.approx(LEFT[:WIDTH].sum(), rel=1e-15)
    assert found[1] == LEFT[:WIDTH].min()


@njit
def _indices(out, start, index):
    store_index(out, start, index)


def test_store_index():
    out = np.full(3 * WIDTH, -1, dtype=np.int32)
    _indices(out, 5, 7)
    assert (out[5 : 5 + WIDTH] == 7).all()
    assert (np.delete(out, np.arange(5, 5 + WIDTH)) == -1).all()


@njit
def _aligned(n):
    return aligned(n)


@pytest.mark.parametrize("n", [0, 1, 8, 1001])
def test_aligned(n):
    arrays = [_aligned(n) for _ in range(5)]
    assert all(array.shape == (n,) for array in arrays)
    assert all(array.ctypes.data % (8 * WIDTH) == 0 for array in arrays if n)
