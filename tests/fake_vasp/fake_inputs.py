"""What the fake VASP reads: INCAR, KPOINTS, POSCAR, POTCAR or its names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Valence electrons of the elements that EMT knows, as the usual POTCARs have them.
VALENCE = {"Al": 3, "Ni": 10, "Cu": 11, "Pd": 10, "Ag": 11, "Pt": 10, "Au": 11}
DEFAULTS = {"NSW": 0, "IBRION": -1, "ISIF": 2, "NELM": 60, "EDIFF": 1e-4, "EDIFFG": 1e-3}


class BadInputError(Exception):
    """VASP would stop here, with this message."""


@dataclass
class Inputs:
    incar: dict
    grid: tuple
    style: str
    symbols: list
    cell: np.ndarray
    fractions: np.ndarray
    titles: list

    def tag(self, name, default=None):
        return self.incar.get(name, DEFAULTS.get(name, default))

    @property
    def formula(self):
        kinds = sorted(set(self.symbols))
        counts = {kind: self.symbols.count(kind) for kind in kinds}
        return "".join(kind + (str(n) if n > 1 else "") for kind, n in counts.items())

    @property
    def n_electrons(self):
        return sum(VALENCE[symbol] for symbol in self.symbols)

    @property
    def n_bands(self):
        """VASP's default, unless INCAR has NBANDS."""
        default = max(int(self.n_electrons + 2) // 2 + max(len(self.symbols) // 2, 3), 1)
        return int(self.tag("NBANDS", default))


def value_of(text):
    """A value of INCAR: flag, number, or words."""
    word = text.strip()
    if word.strip(".").upper() in {"TRUE", "T"}:
        return True
    if word.strip(".").upper() in {"FALSE", "F"}:
        return False
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def read_incar():
    tags = {}
    for line in Path("INCAR").read_text().splitlines():
        for entry in line.partition("#")[0].partition("!")[0].split(";"):
            name, equals, value = entry.partition("=")
            if equals:
                tags[name.strip().upper()] = value_of(value)
    return tags


def read_kpoints(incar):
    if not Path("KPOINTS").is_file():
        if "KSPACING" not in incar:
            raise BadInputError(" ERROR: neither KPOINTS nor KSPACING")
        return (1, 1, 1), "Automatic"
    lines = Path("KPOINTS").read_text().splitlines()
    if int(lines[1].split()[0]) != 0:
        raise BadInputError(" Error reading KPOINTS file")
    style = {"G": "Gamma", "M": "Monkhorst-Pack"}[lines[2].strip()[0].upper()]
    return tuple(int(word) for word in lines[3].split()[:3]), style


def read_poscar():
    lines = Path("POSCAR").read_text().splitlines()
    scale = float(lines[1])
    cell = scale * np.array([[float(x) for x in line.split()[:3]] for line in lines[2:5]])
    kinds, counts = lines[5].split(), [int(word) for word in lines[6].split()]
    symbols = [kind for kind, n in zip(kinds, counts, strict=True) for _ in range(n)]
    cartesian = lines[7].strip()[0].upper() in "CK"
    rows = np.array([[float(x) for x in line.split()[:3]] for line in lines[8 : 8 + len(symbols)]])
    if len(rows) != len(symbols):
        raise BadInputError(" ERROR: end of file in POSCAR")
    if np.linalg.det(cell) < 0.0:
        raise BadInputError(
            " ERROR: the triple product of the basis vectors is negative exchange two basis vectors"
        )
    return symbols, cell, np.linalg.solve(cell.T, rows.T).T if cartesian else rows


def read_titles(symbols):
    """A title for each element in the order of POSCAR, from POTCAR or its list of names."""
    kinds = list(dict.fromkeys(symbols))
    if Path("POTCAR").is_file():
        lines = Path("POTCAR").read_text().splitlines()
        titles = [line.partition("=")[2].strip() for line in lines if "TITEL" in line]
    elif Path("POTCAR.spec").is_file():
        names = Path("POTCAR.spec").read_text().split()
        titles = [f"PAW_FAKE {name} 01Jan2000" for name in names]
    else:
        raise BadInputError("forrtl: severe (29): file not found, unit 10, file POTCAR")
    if [title.split()[1].partition("_")[0] for title in titles] != kinds:
        raise BadInputError(" ERROR: the number of data sets in POTCAR does not fit POSCAR")
    return titles


def read_inputs():
    incar = read_incar()
    symbols, cell, fractions = read_poscar()
    grid, style = read_kpoints(incar)
    return Inputs(incar, grid, style, symbols, cell, fractions, read_titles(symbols))
