"""What spglib says of a crystal; None where it cannot make sense of one, in every version."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import spglib

from hullscreen.potentials.structures import FloatArray, IntArray

Crystal = tuple[FloatArray, FloatArray, IntArray | list[int]]
"""Cell (3, 3) in Å, fractional positions (n_atoms, 3), and a number for each kind of atom."""

_ERRORS = (spglib.SpglibError,) if hasattr(spglib, "SpglibError") else ()


def ask_spglib(question: Callable[..., Any], *arguments: Any, symprec: float) -> Any:
    """The answer of one of spglib's functions, None if it has none.

    Parameters
    ----------
    question
        Such as ``spglib.get_symmetry``.
    arguments
        Its arguments; a `Crystal` is one of them.
    symprec
        How far atoms may be from their ideal places, Å.
    """
    with warnings.catch_warnings():
        # From 2.7 on spglib announces with each call that failures will be exceptions.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return question(*arguments, symprec=symprec)
        except _ERRORS:
            return None
