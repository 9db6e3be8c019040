"""Chemical formulas for tables."""

from collections.abc import Sequence
from functools import reduce
from math import gcd


def reduced_formula(types: Sequence[int], elements: Sequence[str]) -> str:
    """Formula in the order of ``elements``, such as CuAu3, or X0(X1)3 where there are no symbols.

    Parameters
    ----------
    types
        Species of each atom as an index into ``elements``; at least one.
    """
    counts = [types.count(kind) for kind in range(len(elements))]
    divisor = reduce(gcd, counts)
    return "".join(
        name if count == divisor else f"{_apart(name)}{count // divisor}"
        for name, count in zip(elements, counts, strict=True)
        if count
    )


def _apart(name: str) -> str:
    return name if name.isalpha() else f"({name})"
