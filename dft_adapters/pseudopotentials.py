"""Pseudopotential files in UPF: which element and functional they are for, and their hash."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hullscreen.dft_adapters.engine import EngineMissingError
from hullscreen.potentials.errors import SettingsError

# pw.x keeps the path of a file in 256 characters of Fortran, and reads its name as a word.
LONGEST_PATH_BYTES = 255
NOT_IN_A_NAME = frozenset(" \t\n/'\"!,;")
HEADER_BYTES = 200_000  # some files carry their generator's input before the header
# What files write for one functional, upper case, blanks single; the four-word forms are
# exchange, correlation and their gradient corrections as Quantum ESPRESSO spells them.
FUNCTIONALS = {
    "LDA": ("LDA", "PZ", "SLA PZ NOGX NOGC", "PW", "SLA PW NOGX NOGC"),
    "PBE": ("PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"),
    "PBEsol": ("PBESOL", "SLA PW PSX PSC"),
}


@dataclass(frozen=True)
class Pseudopotential:
    """What is needed of a UPF file.

    Attributes
    ----------
    path
        The file.
    element
        Chemical symbol in its header.
    functional
        ``"LDA"``, ``"PBE"``, ``"PBEsol"``, or what the header says.
    valence
        Number of valence electrons.
    sha256
        Hash of the whole file.
    md5
        The hash that pw.x prints.
    cutoff_ry, density_cutoff_ry
        What it suggests for wave functions and density, Ry; 0 if it does not.
    """

    path: Path
    element: str
    functional: str
    valence: float
    sha256: str
    md5: str
    cutoff_ry: float
    density_cutoff_ry: float


def _attribute(header: str, name: str) -> str | None:
    found = re.search(rf"""\b{name}\s*=\s*(["'])(.*?)\1""", header, re.DOTALL)
    return found.group(2).strip() if found else None


def _line(header: str, label: str) -> str | None:
    found = re.search(rf"^\s*(.*?)\s+{label}", header, re.MULTILINE)
    return found.group(1) if found else None


def _number(text: str) -> float:
    """Fortran's way to write a number included."""
    return float(text.upper().replace("D", "E"))


def suggested_cutoffs(paths: Sequence[Path]) -> tuple[float, float]:
    """Cutoffs of wave functions and density in Ry that are enough for all of these files.

    Raises
    ------
    SettingsError
        A file cannot be read, or suggests none.
    """
    headers = []
    for path in paths:
        header = read_header(path) if path.is_file() else None
        if header is None:
            raise SettingsError(f"{str(path)!r} is not a whole pseudopotential in UPF")
        if header.cutoff_ry <= 0.0:
            raise SettingsError(
                f"{str(path)!r} suggests no cutoff; give `cutoff_ry` and `density_cutoff_ry` under "
                "[dft.quantum_espresso] in hullscreen.toml"
            )
        headers.append(header)
    cutoff = max(header.cutoff_ry for header in headers)
    # Norm-conserving files suggest none for the density: the square of what the waves reach.
    return cutoff, max(4.0 * cutoff, *(header.density_cutoff_ry for header in headers))


def functional_name(text: str) -> str:
    """Common name of a functional as a header spells it.

    >>> functional_name(" SLA  PW   PBX  PBC")
    'PBE'
    """
    words = " ".join(text.upper().split())
    for name, spellings in FUNCTIONALS.items():
        if words in spellings:
            return name
    return words


def read_header(path: Path) -> Pseudopotential | None:
    """Header of a UPF file of version 1 or 2; None if it has none, or cannot be read to its end."""
    try:
        status = path.stat()
        return _read_header(path, status.st_mtime_ns, status.st_size)
    except OSError:  # a link to nothing, a folder, a file of somebody else's
        return None


@cache
def _read_header(path: Path, *_version: int) -> Pseudopotential | None:
    content = path.read_bytes()
    text = content[:HEADER_BYTES].decode("utf-8", errors="replace")
    start = text.find("<PP_HEADER")
    truncated = "<UPF" in text and b"</UPF>" not in content
    if start < 0 or truncated:
        return None
    end = min(
        (found for mark in ("/>", "</PP_HEADER>") if (found := text.find(mark, start)) >= 0),
        default=len(text),
    )
    header = text[start:end]
    element = _attribute(header, "element")
    functional = _attribute(header, "functional")
    valence = _attribute(header, "z_valence")
    cutoffs = [_attribute(header, f"{name}_cutoff") or "0" for name in ("wfc", "rho")]
    if element is None:  # version 1: a value and its label on each line
        element = _line(header, "Element")
        functional = _line(header, "Exchange-Correlation functional")
        valence = _line(header, "Z valence")
        cutoffs = (_line(header, "Suggested [Cc]utoff for wfc and rho") or "0 0").split()
        if functional is not None and len(functional.split()) > 4:
            functional = " ".join(functional.split()[:4])  # the fifth word is its short name
    if element is None or functional is None or valence is None:
        return None
    return Pseudopotential(
        path=path,
        element=element,
        functional=functional_name(functional),
        valence=_number(valence),
        sha256=hashlib.sha256(content).hexdigest(),
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        cutoff_ry=_number(cutoffs[0]),
        density_cutoff_ry=_number(cutoffs[1]),
    )


def find_pseudopotentials(
    folder: Path, files: Mapping[str, str], functional: str, elements: Sequence[str]
) -> dict[str, Pseudopotential]:
    """One pseudopotential per element.

    Parameters
    ----------
    folder
        Where the files are.
    files
        File name by element; an element that is not named is looked for in the folder.
    functional
        All must be made for this one.
    elements
        Chemical symbols.

    Raises
    ------
    EngineMissingError
        No folder, no file for an element, a choice between several, a file made for another element
        or functional, or a path that pw.x cannot read.
    """
    if not folder.is_dir():
        raise EngineMissingError(
            "missing_pseudopotential",
            f"the folder of pseudopotentials {str(folder)!r} does not exist; set "
            "`pseudopotentials` under [dft.quantum_espresso] in hullscreen.toml",
        )
    found = {
        element: _named(folder, files[element], functional, element)
        if element in files
        else _discovered(folder, functional, element)
        for element in elements
    }
    for element, name in {e: files.get(e, p.path.name) for e, p in found.items()}.items():
        _refuse_unreadable_path(folder, name, element)
    return found


def _refuse_unreadable_path(folder: Path, name: str, element: str) -> None:
    """pw.x would look for another file, and say of each structure that there is none."""
    if NOT_IN_A_NAME & set(name):
        raise EngineMissingError(
            "wrong_pseudopotential",
            f"pw.x cannot read the name of the pseudopotential {name!r} for {element}; expected a "
            "file name without folders, blanks, quotes, commas, semicolons and exclamation marks",
        )
    path = folder.absolute() / name
    n_bytes = len(os.fsencode(path))
    if n_bytes > LONGEST_PATH_BYTES:
        raise EngineMissingError(
            "wrong_pseudopotential",
            f"the path of the pseudopotential {str(path)!r} has {n_bytes} bytes, and pw.x reads "
            f"{LONGEST_PATH_BYTES}; set `pseudopotentials` to a link with a shorter name",
        )


def _named(folder: Path, name: str, functional: str, element: str) -> Pseudopotential:
    path = folder / name
    if not path.is_file():
        raise EngineMissingError(
            "missing_pseudopotential",
            f"the pseudopotential {name!r} for {element} is not in {str(folder)!r}",
        )
    header = read_header(path)
    if header is None:
        raise EngineMissingError(
            "wrong_pseudopotential", f"{str(path)!r} is not a whole pseudopotential in UPF"
        )
    if header.element != element:
        raise EngineMissingError(
            "wrong_pseudopotential", f"{str(path)!r} is for {header.element}, not for {element}"
        )
    if header.functional != functional:
        raise EngineMissingError(
            "wrong_pseudopotential",
            f"{str(path)!r} was made for {header.functional}, expected {functional}; all "
            "pseudopotentials of a campaign must share one functional",
        )
    return header


def _discovered(folder: Path, functional: str, element: str) -> Pseudopotential:
    candidates = [
        header
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".upf"
        and path.name.lower().startswith(element.lower())
        and (header := read_header(path)) is not None
        and header.element == element
    ]
    fitting = [header for header in candidates if header.functional == functional]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        others = ", ".join(f"{h.path.name} ({h.functional})" for h in candidates) or "none"
        raise EngineMissingError(
            "missing_pseudopotential",
            f"no {functional} pseudopotential for {element} in {str(folder)!r} "
            f"(for {element} there: {others})",
        )
    names = ", ".join(header.path.name for header in fitting)
    raise EngineMissingError(
        "ambiguous_pseudopotential",
        f"several {functional} pseudopotentials for {element} in {str(folder)!r} ({names}); "
        "name one: files = {element = file} under [dft.quantum_espresso] in hullscreen.toml",
    )
