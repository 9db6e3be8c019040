"""CIF and POSCAR, a file for each structure that DFT has relaxed."""

from __future__ import annotations

from hullscreen.launch.exports.contents import Contents, one_line
from hullscreen.workflows.exports import cif_text, file_stem, poscar_text

# A line of a CIF has 2048 characters at most.
CIF_LINE = 1000


def cif_files(contents: Contents) -> dict[str, str]:
    """CIF of each structure in P1, with the provenance in the comments above it."""
    text = contents.provenance_text
    parts = [text[i : i + CIF_LINE] for i in range(0, len(text), CIF_LINE)]
    head = "".join(f"# {line}\n" for line in [one_line(contents.origin), *parts])
    return {f"{file_stem(e)}.cif": head + cif_text(e) for e in contents.entries}


def poscar_files(contents: Contents) -> dict[str, str]:
    """POSCAR of each structure; its first line names the campaign."""
    return {
        f"{file_stem(e)}.vasp": poscar_text(e, one_line(contents.origin)) for e in contents.entries
    }
