"""Where an export goes, whole or not at all: a file, a folder, an archive, standard output."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from hullscreen.launch.atomic_files import umask
from hullscreen.launch.exports.contents import Contents
from hullscreen.launch.exports.formats import ZIP, Format
from hullscreen.launch.exports.unfinished import unfinished_file, unfinished_folder
from hullscreen.potentials.data_files import check_writable
from hullscreen.potentials.errors import InputError

STANDARD_OUTPUT = Path("-")
PROVENANCE = "provenance.json"
# The same archive of the same files: its members are as old as the format can say.
OLDEST = (1980, 1, 1, 0, 0, 0)


def check_output(form: Format, output: Path, *, replace: bool) -> None:
    """Refuse before the database is asked.

    Raises
    ------
    InputError
        The format cannot go there, or something is there already.
    OSError
        Nothing can be written there.
    """
    if output == STANDARD_OUTPUT:
        if form.several or not form.text:
            raise InputError(
                f"this format cannot go to standard output; expected --output "
                f"{'FOLDER, or' if form.several else ''} FILE ending in "
                f"{' or '.join((ZIP, *form.suffixes) if form.several else form.suffixes)}"
            )
        return
    parent = output.absolute().parent
    if not parent.is_dir():
        raise InputError(f"--output {output}: {parent} is no directory; make it first")
    if is_folder(form, output):
        if output.exists() and not output.is_dir():
            raise InputError(f"--output {output} is a file; expected a folder, or a name with .zip")
        if output.is_dir() and any(output.iterdir()) and not replace:
            raise InputError(
                f"--output {output} is not empty; --force replaces files of the same names in it, "
                "or choose another --output"
            )
        check_writable(output / "file" if output.is_dir() else output)
        return
    suffixes = (ZIP, *form.suffixes) if form.several else form.suffixes
    if output.is_dir():
        raise InputError(f"--output {output} is a directory; this format is written to one file")
    if output.suffix.lower() not in suffixes:
        raise InputError(f"--output {output}: expected a name that ends in {' or '.join(suffixes)}")
    if output.exists() and not replace:
        raise InputError(f"{output} exists; --force replaces it, or choose another --output")
    check_writable(output)


def is_folder(form: Format, output: Path) -> bool:
    """Whether a format of several files is to become a folder."""
    return form.several and (output.is_dir() or output.suffix.lower() not in (ZIP, *form.suffixes))


def write_export(form: Format, contents: Contents, output: Path, *, replace: bool) -> None:
    """Write an export; it appears whole or not at all.

    Raises
    ------
    InputError
        Several files would have to be one.
    OSError
        It cannot be written.
    """
    write = form.load()
    if not form.several:
        if output == STANDARD_OUTPUT:
            _print(form, contents)
            return
        with unfinished_file(output) as temporary:
            write(contents, temporary)
        return
    files: dict[str, str] = write(contents)
    origin = json.dumps(contents.provenance, indent=1) + "\n"
    if is_folder(form, output):
        _write_folder(output, {**files, PROVENANCE: origin}, replace=replace)
    elif output.suffix.lower() == ZIP:
        with unfinished_file(output) as temporary:
            _write_archive(temporary, {**files, PROVENANCE: origin})
    else:
        _write_only_one(output, files, origin, replace=replace)


def _print(form: Format, contents: Contents) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"export{form.suffixes[0]}")
        form.load()(contents, path)
        sys.stdout.write(path.read_text(encoding="utf-8"))


def _write_only_one(output: Path, files: dict[str, str], origin: str, *, replace: bool) -> None:
    """One file of its own, and beside it the provenance, for which it may have no room."""
    if len(files) != 1:
        raise InputError(
            f"{len(files)} files are asked for, and {output} would be one: choose one of them "
            "(--number for a structure, --stage or --potential for a potential), or give --output "
            "a folder or a name that ends in .zip"
        )
    beside = output.with_name(f"{output.name}.{PROVENANCE}")
    if beside.exists() and not replace:
        raise InputError(f"{beside} exists; --force replaces it, or choose another --output")
    (only,) = files.values()
    with ExitStack() as both:
        for path, text in {beside: origin, output: only}.items():
            temporary = both.enter_context(unfinished_file(path))
            temporary.write_text(text, encoding="utf-8")


def _write_archive(path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, OLDEST), text, zipfile.ZIP_DEFLATED)


def _write_folder(output: Path, files: dict[str, str], *, replace: bool) -> None:
    """A folder beside its place first; into one that holds files already, each by renaming."""
    try:
        with unfinished_folder(output) as building:
            for name, text in files.items():
                _write_durably(building / name, text)
            if replace and output.is_dir():
                _move_all((building / name for name in files), output)
            else:
                building.chmod(0o777 & ~umask())
                building.rename(output)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise InputError(f"--output {output} was filled by somebody else meanwhile") from error
        error.filename, error.filename2 = str(output), None
        raise


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _move_all(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        path.replace(folder / path.name)
