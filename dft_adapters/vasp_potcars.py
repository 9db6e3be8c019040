"""POTCAR files: the user's own, found in the folders that pymatgen knows, and checked."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hullscreen.dft_adapters.engine import EngineMissingError
from hullscreen.dft_adapters.vasp_settings import WHERE, VaspSettings
from hullscreen.potentials.errors import SettingsError

if TYPE_CHECKING:
    from pymatgen.io.vasp.sets import VaspInputSet

FUNCTIONAL_OF = {"PE": "PBE", "CA": "LDA"}  # LEXCH of a POTCAR → how `potcar_functional` begins
ENDINGS = ("", ".gz", ".bz2", ".xz", ".Z")


@cache
def input_set_class(name: str) -> type[VaspInputSet]:
    """Input set of pymatgen by its name.

    Raises
    ------
    SettingsError
        There is none.
    """
    from pymatgen.io.vasp import sets

    found = getattr(sets, name, None)
    if not (isinstance(found, type) and issubclass(found, sets.VaspInputSet)) or not hasattr(
        found, "CONFIG"
    ):
        raise SettingsError(
            f"{WHERE}: pymatgen has no input set {name!r} with settings of its own; "
            "'MPMetalRelaxSet' is one for metals"
        )
    return found


def input_set_incar(name: str) -> dict[str, Any]:
    """INCAR of an input set of pymatgen, before anything is changed for a calculation."""
    config: dict[str, Any] = input_set_class(name).CONFIG  # type: ignore[attr-defined]
    return dict(config["INCAR"])


@dataclass(frozen=True)
class PotcarFile:
    """A POTCAR of the user's.

    Attributes
    ----------
    path
        The file, which may be compressed.
    title
        Its first line: "PAW_PBE Cu 22Jun2005".
    element, functional
        What it is for: VRHFIN, and ``"PBE"`` or ``"LDA"`` by its LEXCH.
    sha256
        Hash of its content.
    """

    path: Path
    title: str
    element: str
    functional: str
    sha256: str


def potcar_text(path: Path) -> str:
    """Content of a POTCAR, compressed or not."""
    from monty.io import zopen

    with zopen(path, mode="rt", encoding="utf-8") as stream:
        return str(stream.read())


def unchanged_text(potcar: PotcarFile) -> str:
    """Content of a POTCAR, which must be the one that results are stored under.

    Raises
    ------
    EngineMissingError
        The file has changed since it was first read.
    """
    text = potcar_text(potcar.path)
    if _hash(text) != potcar.sha256:
        raise EngineMissingError(
            "wrong_potcar",
            f"{potcar.path} has changed while calculations with it were under way; put the earlier "
            "file back, or begin another campaign",
        )
    return text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def read_potcar(path: Path) -> PotcarFile:
    """Head and hash of a POTCAR, as it was when this process first read it."""
    text = potcar_text(path)
    tags = {}
    for tag in ("VRHFIN", "LEXCH"):
        _, _, after = text.partition(f"{tag} ")
        tags[tag] = after.partition("\n")[0].strip(" =").partition(":")[0].strip()
    return PotcarFile(
        path,
        text.partition("\n")[0].strip(),
        tags["VRHFIN"],
        FUNCTIONAL_OF.get(tags["LEXCH"], tags["LEXCH"]),
        _hash(text),
    )


def potcar_symbols(settings: VaspSettings) -> dict[str, str]:
    """POTCAR by element, as the input set and the settings choose."""
    chosen: dict[str, Any] = vars(input_set_class(settings.input_set))["CONFIG"]["POTCAR"]
    plain = {e: p["symbol"] if isinstance(p, dict) else p for e, p in chosen.items()}
    return {**plain, **settings.potcars}


def _potcar_folder(settings: VaspSettings) -> Path:
    """Where POTCARs of the functional are.

    Raises
    ------
    EngineMissingError
        No folder is named, or it does not exist.
    """
    from pymatgen.core import SETTINGS
    from pymatgen.io.vasp.inputs import PotcarSingle

    known = PotcarSingle.functional_dir
    if settings.potcar_functional not in known:
        raise SettingsError(
            f"{WHERE}: potcar_functional must be one of {', '.join(known)}, got "
            f"{settings.potcar_functional!r}"
        )
    named = settings.potcar_directory or SETTINGS.get("PMG_VASP_PSP_DIR")
    if named is None:
        raise EngineMissingError(
            "missing_potcar",
            "no folder of POTCARs is known; set potcar_directory under [dft.vasp] or "
            "PMG_VASP_PSP_DIR for pymatgen (`pmg config -p`), or potcar_spec = true to prepare "
            "inputs without them",
        )
    folder = Path(named).expanduser()
    names = _folder_names(settings.potcar_functional)
    for inner in (folder / name for name in names):
        if inner.is_dir():
            return inner
    if _holds_potcars(folder):
        return folder
    raise EngineMissingError(
        "missing_potcar",
        f"there is no folder {' or '.join(names)} of POTCARs ({settings.potcar_functional}) in "
        f"{folder}, nor are POTCARs there; correct potcar_directory or potcar_functional under "
        "[dft.vasp]",
    )


def _folder_names(functional: str) -> list[str]:
    """What the folder of a functional's POTCARs is called: by pymatgen, and in VASP's archives.

    ``PBE_54`` is ``potpaw_PBE.54`` in the archive that VASP's licensees download.
    """
    from pymatgen.core import SETTINGS
    from pymatgen.io.vasp.inputs import PotcarSingle

    own = SETTINGS.get("PMG_VASP_PSP_SUB_DIRS", {}).get(functional)
    archive = f"potpaw_{functional.removesuffix('_W_HASH')}"
    names = [own, PotcarSingle.functional_dir[functional], functional]
    names += [archive.replace("_5", ".5").replace("_6", ".6"), archive]
    return list(dict.fromkeys(name for name in names if name))


def _holds_potcars(folder: Path) -> bool:
    patterns = ("POTCAR.*", *(f"*/POTCAR{ending}" for ending in ENDINGS))
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _locate(folder: Path, symbol: str) -> Path | None:
    for name in (f"POTCAR.{symbol}", f"{symbol}/POTCAR"):
        for ending in ENDINGS:
            path = folder / f"{name}{ending}"
            if path.is_file():
                return path
    return None


def find_potcars(settings: VaspSettings, elements: Sequence[str]) -> dict[str, PotcarFile]:
    """POTCAR of each element.

    Raises
    ------
    EngineMissingError
        One is missing, or is made for another element or functional.
    """
    folder, symbols = _potcar_folder(settings), potcar_symbols(settings)
    found = {}
    for element in elements:
        symbol = symbols.get(element, element)
        path = _locate(folder, symbol)
        if path is None:
            raise EngineMissingError(
                "missing_potcar",
                f"there is no POTCAR {symbol} for {element} in {folder}; put one there, or name "
                f"another one: potcars = {{{element} = ...}} under [dft.vasp]",
            )
        potcar = read_potcar(path)
        wanted = settings.potcar_functional.partition("_")[0]
        if potcar.element != element or potcar.functional != wanted:
            raise EngineMissingError(
                "wrong_potcar",
                f"{path} is made for {potcar.element or 'no element'} and "
                f"{potcar.functional or 'no functional'} ({potcar.title}); expected {element} and "
                f"{wanted}",
            )
        found[element] = potcar
    return found


def require_readable(potcars: Iterable[PotcarFile]) -> None:
    """Raise `EngineMissingError` for a POTCAR that pymatgen cannot read.

    custodian's handlers read all input files, so they could mend nothing.
    """
    from pymatgen.io.vasp.inputs import PotcarSingle, UnknownPotcarWarning

    for potcar in potcars:
        text = potcar_text(potcar.path)
        try:
            with warnings.catch_warnings():
                # One that its database does not know may still be right.
                warnings.simplefilter("ignore", UnknownPotcarWarning)
                PotcarSingle(text)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EngineMissingError(
                "wrong_potcar",
                f"{potcar.path} is cut off or no POTCAR: pymatgen cannot read it "
                f"({error or type(error).__name__}); copy it anew from VASP's own",
            ) from error
        if not text.rstrip().endswith("End of Dataset"):
            raise EngineMissingError(
                "wrong_potcar",
                f"{potcar.path} is cut off: it does not end with 'End of Dataset'; copy it anew "
                "from VASP's own",
            )


def known_potcars(settings: VaspSettings, elements: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Title and hash of the POTCAR of each element; without files, the names alone."""
    if settings.potcar_spec:
        symbols = potcar_symbols(settings)
        return {element: (symbols[element], "") for element in elements if element in symbols}
    return {
        element: (potcar.title, potcar.sha256)
        for element, potcar in find_potcars(settings, elements).items()
    }
