"""The table of formats that `hullscreen export` writes, each imported only when it is written."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hullscreen.potentials.errors import InputError

ZIP = ".zip"


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes
    ----------
    writer
        Module and function. Of one file: ``write(contents, path)``, whose path has the wanted
        suffix; of several: ``texts(contents)``, a text for each file's name.
    summary
        A line of help.
    suffixes
        How the name of a file ends, the usual one first.
    several
        Whether it is a folder of files, or a .zip archive.
    text
        Whether one file of it may go to standard output.
    of_hull
        Whether it shows structures that DFT has relaxed.
    """

    writer: str
    summary: str
    suffixes: tuple[str, ...]
    several: bool = False
    text: bool = True
    of_hull: bool = True

    def load(self) -> Callable[..., Any]:
        """The function that writes it."""
        module, _, name = self.writer.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function


FORMATS: dict[str, Format] = {
    "entries": Format(
        "hullscreen.launch.exports.pymatgen_entries:write",
        "pymatgen's ComputedStructureEntry, for a PhaseDiagram",
        (".json",),
    ),
    "extxyz": Format(
        "hullscreen.launch.exports.labelled_cells:write_relaxed",
        "extended XYZ with energies, forces and stresses",
        (".extxyz", ".xyz"),
    ),
    "cfg": Format(
        "hullscreen.launch.exports.labelled_cells:write_relaxed", "the same for MLIP", (".cfg",)
    ),
    "ase-db": Format(
        "hullscreen.launch.exports.ase_database:write",
        "the same as an ASE database",
        (".db",),
        text=False,
    ),
    "cif": Format(
        "hullscreen.launch.exports.crystals:cif_files",
        "a file for each structure",
        (".cif",),
        several=True,
    ),
    "poscar": Format(
        "hullscreen.launch.exports.crystals:poscar_files",
        "a file for each structure, for VASP",
        (".vasp", ".poscar"),
        several=True,
    ),
    "optimade": Format(
        "hullscreen.launch.exports.optimade_lines:write", "OPTIMADE JSON lines", (".jsonl",)
    ),
    "csv": Format("hullscreen.launch.exports.tables:write_csv", "a table", (".csv",)),
    "json": Format(
        "hullscreen.launch.exports.tables:write_json",
        "what `hullscreen hull --json --all` prints",
        (".json",),
    ),
    "hull-figure": Format(
        "hullscreen.launch.exports.hull_figure:write",
        "the hull for a paper: PDF, SVG or PNG",
        (".pdf", ".svg", ".png"),
        text=False,
    ),
    "report": Format(
        "hullscreen.launch.exports.html_report:write",
        "the campaign as one page that needs no network",
        (".html",),
        of_hull=False,
    ),
    "potential": Format(
        "hullscreen.launch.exports.trained:potential_files",
        "the newest potential of each stage, for MLIP",
        (".mtp",),
        several=True,
        of_hull=False,
    ),
    "training-set": Format(
        "hullscreen.launch.exports.trained:write_training_set",
        "what it was trained on: extended XYZ or .cfg",
        (".extxyz", ".xyz", ".cfg"),
        of_hull=False,
    ),
}

# Names that several formats would take, and the one that is meant unless --format says otherwise.
MEANT_BY_SUFFIX = {".extxyz": "extxyz", ".xyz": "extxyz", ".cfg": "cfg"}


def format_name(given: str | None, output: Path | None) -> str:
    """Name of the format that was asked for, or that the name of the output tells.

    Raises
    ------
    InputError
        Neither tells it.
    """
    if given is not None:
        return given
    if output is None or str(output) == "-":
        raise InputError(
            f"expected --format, or --output with a name that tells it; formats are "
            f"{', '.join(FORMATS)}"
        )
    suffix = output.suffix.lower()
    fitting = [name for name, form in FORMATS.items() if suffix in form.suffixes]
    if suffix in MEANT_BY_SUFFIX:
        return MEANT_BY_SUFFIX[suffix]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(
            f"--output {output} may be {' or '.join(fitting)}; say which with --format"
        )
    near = difflib.get_close_matches(suffix, [s for f in FORMATS.values() for s in f.suffixes])
    advice = f"did you mean {near[0]}, or" if near else "you may"
    raise InputError(
        f"--output {output} does not tell a format by its name; {advice} give --format, one of "
        f"{', '.join(FORMATS)}"
    )
