"""Writing settings: the commented ``hullscreen.toml`` and the table of the README."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from hullscreen.workflows.settings_tree import Settings

NO_BREAK = "\u00a0"

HEAD = """\
# Settings of a hullscreen campaign. Every key is shown; a key that is left out has its default.
# `hullscreen run` reads this file; a running campaign keeps what it has begun.
"""


def documented_fields() -> Iterator[tuple[str, str, str, Any]]:
    """Table, key, description and default of every setting, in the order of the file.

    The default of a key that must be given is None.
    """
    for table, tree in _tables():
        for key, field in tree.__pydantic_fields__.items():
            if not _is_table(field.annotation):
                default = (
                    None if field.is_required() else field.get_default(call_default_factory=True)
                )
                yield table, key, field.description or "", default


def render(settings: Settings) -> str:
    """``hullscreen.toml`` with a comment above every key; reading it gives ``settings`` back."""
    values = settings.tables()
    lines = [HEAD]
    fields = list(documented_fields())
    for table, tree in _tables():
        lines += [_comment(tree.__doc__ or ""), f"[{table}]"]
        at: Any = values
        for part in table.split("."):
            at = at[part]
        for _, key, description, default in (row for row in fields if row[0] == table):
            told = "" if default is None else f"Default: {toml_value(default)}."
            lines += [_comment(description, told), f"{key} = {toml_value(at[key])}"]
        lines.append("")
    return "\n".join(lines)


def markdown_table() -> str:
    """The settings as the README shows them."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for table, key, description, default in documented_fields():
        shown = "must be given" if default is None else f"`{toml_value(default)}`"
        rows.append(f"| `{table}.{key}` | {shown} | {description} |")
    return "\n".join(rows)


def toml_value(value: Any) -> str:
    """``value`` as TOML writes it: strings, numbers, booleans, dates, lists and inline tables."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _toml_string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_toml_string(k)} = {toml_value(v)}" for k, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(value)


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    plain = "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped)
    return f'"{plain}"'


def _comment(text: str, last: str = "") -> str:
    """Comment lines of ``text`` and then ``last``, which is not broken."""
    glued = last.replace(" ", NO_BREAK)
    words = " ".join(f"{text} {glued}".replace("``", "").split(" ")).strip()
    filled = textwrap.fill(words, 96, initial_indent="# ", subsequent_indent="# ")
    return filled.replace(NO_BREAK, " ")


def _is_table(annotation: Any) -> bool:
    return hasattr(annotation, "__pydantic_fields__")


def _tables(tree: Any = Settings, name: str = "") -> Iterator[tuple[str, Any]]:
    """Name and dataclass of every table, parents first."""
    for key, field in tree.__pydantic_fields__.items():
        if _is_table(field.annotation):
            full = f"{name}.{key}".strip(".")
            yield full, field.annotation
            yield from _tables(field.annotation, full)
