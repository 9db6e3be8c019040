"""The ends of files that calculations have left, made safe to look at in a terminal."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

# Of files of any size this much of the end is read.
MOST_BYTES = 256 * 1024
LONGEST_LINE = 300
# Where programs say why they ended: Quantum ESPRESSO, VASP, and what both write into errors.txt.
SHOWN = ("output.txt", "vasp.out", "CRASH", "errors.txt", "std_err.txt")


@dataclass(frozen=True)
class Tail:
    """The end of a file.

    Attributes
    ----------
    path
        Of the file.
    size
        Of the whole file, bytes.
    lines
        Its last lines, control characters escaped.
    """

    path: Path
    size: int
    lines: tuple[str, ...]


def folders_of(root: Path, key: str) -> list[Path]:
    """Folders of a calculation under ``root``: its own, others' beside it, and those set aside."""
    if not key.isalnum():
        return []
    parent = root.resolve() / key[:2]
    found = [path for path in parent.glob(f"{key}*") if not path.is_symlink() and path.is_dir()]
    return sorted(path for path in found if path.resolve().parent == parent)


def tails(folder: Path, n_lines: int) -> list[Tail]:
    """Ends of the files in a folder that say how a calculation went; empty ones are left out."""
    found = (_tail(folder / name, n_lines) for name in SHOWN)
    return [tail for tail in found if tail is not None and tail.lines]


def _tail(path: Path, n_lines: int) -> Tail | None:
    """The end of a plain file; None for anything else, such as a link that leads elsewhere."""
    try:
        # Opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        file.seek(max(0, status.st_size - MOST_BYTES))
        text = file.read(MOST_BYTES).decode("utf-8", errors="replace")
    lines = text.rstrip().splitlines()[-n_lines:] if n_lines else []
    return Tail(path, status.st_size, tuple(safe_line(line) for line in lines))


def safe_line(line: str) -> str:
    """A line without anything that a terminal would obey, and not too long."""
    shown = "".join(
        char if char.isprintable() else " " if char in "\t\xa0" else _escaped(char)
        for char in line[: LONGEST_LINE + 1].rstrip()
    )
    return shown if len(shown) <= LONGEST_LINE else f"{shown[: LONGEST_LINE - 1]}…"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
