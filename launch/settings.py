"""Reading ``hullscreen.toml``: once, strictly, and with a sentence for everything that is wrong."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hullscreen.database.addresses import has_secret, without_login
from hullscreen.launch.settings_template import documented_fields, toml_value
from hullscreen.potentials.errors import SettingsError
from hullscreen.workflows.settings_tree import MAX_ATOMS, Settings

__all__ = ["FILE_NAME", "Settings", "from_tables", "load", "with_database_uri"]

PLAIN_WORDS = (("valid tuple", "list"), ("a valid i", "an i"), ("valid ", ""))
"""Pydantic's words for a type, and those of a settings file."""

FILE_NAME = "hullscreen.toml"

ENGINE_FOLDERS = (("quantum_espresso", "pseudopotentials"), ("vasp", "potcar_directory"))
"""Settings whose paths are relative to the directory of the campaign."""


def load(directory: Path) -> Settings:
    """Settings of the campaign in ``directory``.

    Raises
    ------
    SettingsError
        There is no ``hullscreen.toml``, it is no TOML (the line is named), or a key or value is
        wrong (the nearest known key or the expected value is named), or it holds a password.
    """
    path = directory / FILE_NAME
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SettingsError(
            f"{path} does not exist; `hullscreen init {directory} --elements Cu Pd` writes one"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(
            f"{path}, line {line}: expected UTF-8 text, but a byte there is none; save the file "
            "as UTF-8"
        ) from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no valid TOML: {error}; correct that line") from error
    settings = from_tables(_counted_from(directory, tables), source=str(path), text=text)
    if has_secret(settings.database.uri):
        number = _line(text, ("database", "uri"))
        raise SettingsError(
            f"{path}, line {number}: [database] uri holds a password, and settings are copied and "
            "shown to others; put the URI into a file of mode 0600 and name that as uri_file"
        )
    return settings


def from_tables(tables: Mapping[str, Any], *, source: str = FILE_NAME, text: str = "") -> Settings:
    """Settings from nested dictionaries.

    Parameters
    ----------
    tables
        What TOML gives: tables of keys and values.
    source, text
        File name and its content, for error messages with a line; empty where there is no file.

    Raises
    ------
    SettingsError
        A key or value is wrong; the first unknown key is reported before wrong values.
    """
    try:
        return Settings(**_with_max_atoms(tables))
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda problem: not _is_unknown(problem))
        where, sentence = _describe(problems[0])
        line = _line(text, where)
        place = f"{source}, line {line}: " if line else f"{source}: " if source else ""
        raise SettingsError(place + sentence) from error


def with_database_uri(settings: Settings, uri: str | None) -> Settings:
    """The same settings with another MongoDB address; None changes nothing.

    Raises
    ------
    SettingsError
        ``uri`` is no MongoDB address.
    """
    if uri is None:
        return settings
    tables = settings.tables()
    tables["database"] |= {"uri": uri, "uri_file": ""}
    return from_tables(tables, source="--db")


def _counted_from(directory: Path, tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with folders of the engines as full paths: workers start anywhere."""
    dft = tables.get("dft")
    if not isinstance(dft, Mapping):
        return dict(tables)
    full: dict[str, Any] = {}
    for engine, key in ENGINE_FOLDERS:
        table = dft.get(engine)
        given = table.get(key) if isinstance(table, Mapping) else None
        if isinstance(table, Mapping) and isinstance(given, str) and given:
            path = directory.absolute() / Path(given).expanduser()
            full[engine] = {**table, key: str(path)}
    return {**tables, "dft": {**dft, **full}}


def _with_max_atoms(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in ``max_atoms`` by the number of elements, where it is not given."""
    campaign, prototypes = tables.get("campaign"), tables.get("prototypes", {})
    elements = campaign.get("elements") if isinstance(campaign, Mapping) else None
    if not isinstance(elements, list | tuple) or not isinstance(prototypes, Mapping):
        return dict(tables)
    default = MAX_ATOMS.get(len(elements), MAX_ATOMS[2])
    return {**tables, "prototypes": {"max_atoms": default, **prototypes}}


def _known_keys() -> dict[str, set[str]]:
    """Keys of each table; the names of the top tables under ''."""
    found: dict[str, set[str]] = {"": set()}
    for table, key, *_ in documented_fields():
        parent, _, name = table.rpartition(".")
        found.setdefault(parent, set()).add(name)
        found.setdefault(table, set()).add(key)
    return found


def _is_unknown(problem: ErrorDetails) -> bool:
    return problem["type"] in {"unexpected_keyword_argument", "extra_forbidden"}


def _describe(problem: ErrorDetails) -> tuple[tuple[str, ...], str]:
    """Place (tables, then key) and sentence of one pydantic complaint."""
    where = tuple(part for part in problem["loc"] if isinstance(part, str))
    table, key = ".".join(where[:-1]), where[-1] if where else ""
    if _is_unknown(problem):
        return where, _unknown_key(table, key)
    name = f"[{table}] {key}" if table else f"[{key}]"
    if problem["type"] == "missing":
        example = ' such as elements = ["Cu", "Pd"]' if key in {"elements", "campaign"} else ""
        return where, f"{name} is missing; add it,{example}".rstrip(",")
    if problem["type"] == "value_error":
        full = ".".join(where)
        owner = f"[{full}]" if full in _known_keys() else name
        return where, f"{owner}: {problem['ctx']['error']}"
    if problem["type"].startswith("dataclass"):
        return where, f"{name} is {_shown(problem['input'])}, expected a table of keys"
    return where, f"{name} is {_shown(problem['input'])}, {_expected(problem, where)}"


def _unknown_key(table: str, key: str) -> str:
    known = _known_keys()
    homes = [name for name, keys in known.items() if name and key in keys]
    if not table:
        if homes:
            return f"{key} stands outside every table; move it below the line [{homes[0]}]"
        near = difflib.get_close_matches(key, known[""], n=1)
        advice = f"did you mean [{near[0]}]?" if near else f"known are {_listed(known[''])}"
        return f"[{key}] is no table of the settings; {advice}"
    near = difflib.get_close_matches(key, known[table], n=1)
    if near:
        return f"[{table}] has no key {key}; did you mean {near[0]}?"
    if homes:
        return f"[{table}] has no key {key}; it belongs into [{homes[0]}]"
    return f"[{table}] has no key {key}; known are {_listed(known[table])}"


def _expected(problem: ErrorDetails, where: tuple[str, ...]) -> str:
    context = problem.get("ctx", {})
    if problem["type"] == "too_short":
        return "expected at least one"
    if "pattern" in context:
        return f"expected: {_description(where)}"
    message = problem["msg"].removeprefix("Input should be ")
    for words, plain in PLAIN_WORDS:
        message = message.replace(words, plain)
    expected = f"expected {message}"
    choices = re.findall(r"'([^']+)'", str(context.get("expected", "")))
    near = difflib.get_close_matches(str(problem["input"]), choices, n=1)
    return f"{expected}; did you mean '{near[0]}'?" if near else expected


def _description(where: tuple[str, ...]) -> str:
    table, key = ".".join(where[:-1]), where[-1]
    meanings = {(row[0], row[1]): row[2] for row in documented_fields()}
    return meanings[table, key].rstrip(".")


def _shown(value: Any) -> str:
    """The value as it stands in the file; long ones shortened, a password never shown."""
    # A login may lack what it is known by: the address may be wrong just there.
    text = without_login(toml_value(value).strip('"'))
    text = f'"{text}"' if isinstance(value, str) else text
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _line(text: str, where: tuple[str, ...]) -> int | None:
    """Line of the key (or of its table) in the file; None where it cannot be told."""
    tables, key = where[:-1], where[-1] if where else ""
    in_table, found = "", None
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            in_table = header[1].replace(" ", "")
            if in_table == ".".join(where):
                found = number
        elif in_table == ".".join(tables) and re.match(rf'\s*"?{re.escape(key)}"?\s*=', line):
            return number
    return found
