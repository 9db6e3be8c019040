"""Element symbols as people type them: checked at once, with the nearest symbol when wrong."""

import difflib
from collections.abc import Sequence

from hullscreen.potentials.errors import InputError

MIN_ELEMENTS = 2
MAX_ELEMENTS = 4

_TABLE = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm
Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No
Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS = tuple(_TABLE.split())
"""Symbols in the order of atomic numbers, from hydrogen at index 0."""


def check_elements(symbols: Sequence[str]) -> tuple[str, ...]:
    """The symbols as a tuple, if they name the elements of a campaign.

    Parameters
    ----------
    symbols
        Two to four different element symbols, such as ``["Cu", "Pd"]``.

    Raises
    ------
    InputError
        A symbol is unknown (the nearest one is named) or named twice, or there are too few or
        too many.
    """
    for symbol in symbols:
        if symbol not in SYMBOLS:
            raise InputError(f'"{symbol}" is no element symbol{_advice(symbol)}')
    for i_symbol, symbol in enumerate(symbols):
        if symbol in symbols[:i_symbol]:
            raise InputError(f"{symbol} is named twice; name each element once")
    if not MIN_ELEMENTS <= len(symbols) <= MAX_ELEMENTS:
        named = ", ".join(symbols) or "none"
        raise InputError(
            f"expected two to four elements, such as Cu Pd, but {len(symbols)} came: {named}"
        )
    return tuple(symbols)


def nearest_symbol(text: str) -> str | None:
    """Symbol that ``text`` was probably meant to be: other case, English name, or a near miss."""
    if text.capitalize() in SYMBOLS:
        return text.capitalize()
    from ase.data import atomic_names

    names: dict[str, str] = dict(
        zip((name.lower() for name in atomic_names[1:]), SYMBOLS, strict=False)
    )
    near_names = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.75)
    if near_names:
        return names[near_names[0]]
    near_symbols = difflib.get_close_matches(text.capitalize(), SYMBOLS, n=1, cutoff=0.5)
    return near_symbols[0] if near_symbols else None


def _advice(text: str) -> str:
    nearest = nearest_symbol(text)
    return "; write symbols such as Cu" if nearest is None else f'; did you mean "{nearest}"?'
