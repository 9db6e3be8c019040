"""Fields of MLIP's text files of potentials, read by name with a sentence for whatever is wrong."""

from __future__ import annotations

import math
import re

import numpy as np

from hullscreen.potentials.errors import FileFormatError
from hullscreen.potentials.structures import FloatArray

CUT_OFF = "the file may have been cut off"
# Tables are of 32-bit numbers; no count or index comes near.
LARGEST = 2**31 - 1
_PAIR = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")


class Fields:
    """What a file says by name: lines ``name = value``.

    Whatever is missing or not what it should be raises `FileFormatError` with the field's name.
    """

    def __init__(self, text: str) -> None:
        self._scalings: list[str] = []
        self._values: dict[str, str] = {}
        for line in text.splitlines():
            key, separator, value = line.partition("=")
            if separator:
                self._values[key.strip()] = value.strip()
                if key.strip() == "scaling":
                    self._scalings.append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, *names: str, default: str | None = None) -> str:
        """Value of the first of ``names`` that the file has."""
        for name in names:
            if name in self._values:
                return self._values[name]
        if default is None:
            raise FileFormatError(
                f"the field {names[0]} is missing; {CUT_OFF}, or it is a template without "
                f"coefficients"
            )
        return default

    def count(self, *names: str) -> int:
        """A whole number."""
        text = self.text(*names)
        if not _is_whole(text):
            raise FileFormatError(f"{names[0]} must be a whole number, came '{_shown(text)}'")
        return int(text)

    def check_count(self, name: str, found: float) -> None:
        """Raise FileFormatError if the field ``name`` is there and says another number."""
        if name in self and self.count(name) != found:
            raise FileFormatError(
                f"{name} says {self.count(name)}, but there are {found:g}; {CUT_OFF}"
            )

    def number(self, *names: str) -> float:
        """A finite number."""
        return _finite(self.text(*names), names[0])

    def scaling(self) -> float:
        """One by default; that of the potential and that of its radial basis multiply in MLIP."""
        return math.prod((_finite(text, "scaling") for text in self._scalings), start=1.0)

    def integers(self, name: str) -> list[int]:
        """Numbers of a list in braces, or of a list of lists."""
        words = re.sub(r"[{},]", " ", self._braced(name)).split()
        strange = [word for word in words if not _is_whole(word.removeprefix("-"))]
        if strange:
            raise FileFormatError(f"{name} must hold whole numbers, came '{_shown(strange[0])}'")
        if name.startswith("alpha_index") and len(words) % 4:
            raise FileFormatError(f"{name} must hold groups of four numbers, came {len(words)}")
        return [int(word) for word in words]

    def numbers(self, name: str, n: int, what: str) -> FloatArray:
        """``n`` finite numbers of a list in braces, one for each of ``what``."""
        found = _finite_list(self._braced(name), name)
        if len(found) != n:
            raise FileFormatError(f"{name} holds {len(found)} numbers, expected {n} {what}")
        return np.array(found)

    def _braced(self, name: str) -> str:
        text = self.text(name)
        if not text.startswith("{") or text.count("{") != text.count("}"):
            raise FileFormatError(
                f"{name} must be a list in braces, came '{_shown(text)}'; {CUT_OFF}"
            )
        return text


def radial_coefficients(text: str, n_species: int, n_radial: int, n_beta: int) -> FloatArray:
    """The block ``radial_coeffs``: c[z_i, z_j, μ, β].

    Returns
    -------
    Shape (n_species, n_species, n_radial, n_beta).

    Raises
    ------
    FileFormatError
        Numbers are missing, too many, or not finite.
    """
    # The block ends where fields go on.
    block = text.partition("radial_coeffs")[2].partition("=")[0]
    pair: tuple[int, int] | None = None
    rows: dict[tuple[int, int], list[float]] = {}
    for line in block.splitlines():
        header = _PAIR.fullmatch(line)
        if header:
            pair = int(header[1]), int(header[2])
        elif "{" in line and pair is not None:
            if line.count("{") != line.count("}"):
                raise FileFormatError(
                    f"the radial coefficients of {pair[0]}-{pair[1]} must be lists in braces; "
                    f"{CUT_OFF}"
                )
            name = f"the radial coefficients of {pair[0]}-{pair[1]}"
            rows.setdefault(pair, []).extend(_finite_list(line, name))
    radial = []
    for i in range(n_species):
        for j in range(n_species):
            found = rows.get((i, j), [])
            if len(found) != n_radial * n_beta:
                raise FileFormatError(
                    f"there are {len(found)} radial coefficients of {i}-{j}, expected {n_radial} "
                    f"functions of {n_beta}; {CUT_OFF}"
                )
            radial += found
    return np.reshape(radial, (n_species, n_species, n_radial, n_beta))


def _is_whole(text: str) -> bool:
    """Whether these are the digits of a number that a table can hold."""
    return text.isdecimal() and len(text) <= 10 and int(text) <= LARGEST


def _shown(text: str) -> str:
    """The end of a text, where it was cut off, if it is long."""
    return text if len(text) <= 30 else "..." + text[-27:]


def _finite_list(text: str, name: str) -> list[float]:
    return [_finite(word, name) for word in re.sub(r"[{},]", " ", text).split()]


def _finite(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FileFormatError(f"{name} must hold finite numbers, came '{text.strip()}'")
    return value
