"""What the settings of every engine that works through files have in common.

Presets are data files in one folder; those of VASP begin with ``vasp-``, the others are Quantum
ESPRESSO's. Values are checked by type, with a sentence that names the table they stand in.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from hullscreen.potentials.errors import SettingsError

PRESETS = Path(__file__).with_name("presets")
VASP_PREFIX = "vasp-"

# Starting moments in Bohr magnetons, a little above those of the elements so that the magnetic
# solution is found where there is one; the calculation itself decides.
INITIAL_MOMENTS = {"Cr": 1.5, "Mn": 3.0, "Fe": 2.8, "Co": 2.0, "Ni": 1.0}
ROUNDING = 1e-9


def preset_names(*, vasp: bool) -> list[str]:
    """Presets of VASP, or those of Quantum ESPRESSO."""
    names = sorted(path.stem for path in PRESETS.glob("*.toml"))
    return [name for name in names if name.startswith(VASP_PREFIX) == vasp]


def read_preset(name: str, *, vasp: bool, where: str) -> dict[str, Any]:
    """Table of the preset ``name``.

    Raises
    ------
    SettingsError
        The engine has none of that name.
    """
    known = preset_names(vasp=vasp)
    if name not in known:
        raise SettingsError(
            f"{where} has no preset {name!r}; presets: {', '.join(map(repr, known))}"
        )
    with (PRESETS / f"{name}.toml").open("rb") as stream:
        return tomllib.load(stream)


def typed(where: str, key: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    """The value, if it is of this type; `SettingsError` if not."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(k.__name__.lower() for k in kinds)
        raise SettingsError(f"{where}: {key} must be a {expected}, got {value!r}")
    return value


def positive(where: str, key: str, value: Any) -> float:
    """The value as a number above zero; `SettingsError` if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise SettingsError(f"{where}: {key} must be a positive number, got {value!r}")
    return float(value)


def command_words(where: str, value: Any) -> tuple[str, ...]:
    """Words of a command given as text or as a list; `SettingsError` if there are none."""
    words = shlex.split(value) if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not words:
        raise SettingsError(f"{where}: command must name an executable, got {value!r}")
    return tuple(str(word) for word in words)


def moments(where: str, value: Mapping[str, Any]) -> dict[str, float]:
    """Starting moments of `INITIAL_MOMENTS` with those of ``value`` on top."""
    given = typed(where, "initial_moments", value, Mapping)
    for element, moment in given.items():
        typed(where, f"initial_moments.{element}", moment, (int, float))
    return {**INITIAL_MOMENTS, **{element: float(moment) for element, moment in given.items()}}


def is_polarised(symbols: Sequence[str], magnetic: Container[str], from_fraction: float) -> bool:
    """Whether a structure of these atoms has spin: enough of them are of ``magnetic`` elements."""
    n_magnetic = sum(symbol in magnetic for symbol in symbols)
    return n_magnetic > 0 and n_magnetic >= from_fraction * len(symbols) - ROUNDING
