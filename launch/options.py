"""Options and arguments that several commands share."""

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

# What species are called that have no element.
_NUMBERED = re.compile(r"X\d+")

Function = TypeVar("Function", bound=Callable[..., Any])


class ManyValues(click.Option):
    """An option that takes every word up to the next option: ``--elements Cu Ni Pt``.

    The command receives a tuple. Repeating the option appends; ``--`` ends the values.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        keywords["multiple"] = True
        super().__init__(*arguments, **keywords)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register with click's parser, then let the option eat the words that follow it."""
        super().add_to_parser(parser, ctx)
        for name in self.opts:
            registered = parser._long_opt.get(name) or parser._short_opt.get(name)  # noqa: SLF001
            registered.process = _taking_more(registered.process)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert each word; commas between them are not meant to be part of a word."""
        if any("," in str(word) for word in value or ()):
            words = " ".join(re.split(r"[,\s]+", " ".join(map(str, value)))).strip()
            raise click.BadParameter(
                f"values are separated by blanks, not commas: {self.opts[0]} {words}",
                ctx=ctx,
                param=self,
            )
        return super().type_cast_value(ctx, value)


def _taking_more(take_one: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def take_all(value: Any, state: Any) -> None:
        take_one(value, state)
        while state.rargs and not state.rargs[0].startswith("-"):
            take_one(state.rargs.pop(0), state)

    return take_all


class FileToRead(click.Path):
    """The path of a file that a command reads; one that is empty is refused."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, if the file is not there either: reading it names what is wrong."""
        path = Path(str(super().convert(value, param, ctx)))
        if path.is_file() and not path.stat().st_size:
            self.fail(f"{path} is empty", param, ctx)
        return path


def known_symbols(
    _ctx: click.Context, _parameter: click.Parameter, symbols: tuple[str, ...]
) -> tuple[str, ...]:
    """Callback of an option: all are different, and elements or X0, X1, ...

    Raises
    ------
    click.BadParameter
        One is not; the nearest symbol is named.
    """
    from ase.data import chemical_symbols

    known = chemical_symbols[1:]
    for symbol in symbols:
        if symbol not in known and not _NUMBERED.fullmatch(symbol):
            near = difflib.get_close_matches(symbol.capitalize(), known, n=1, cutoff=0.0)
            raise click.BadParameter(
                f"{symbol!r} is not an element; the nearest symbol is {near[0]!r}"
            )
        if symbols.count(symbol) > 1:
            raise click.BadParameter(f"{symbol} is named more than once; name it once")
    return symbols


def species_option(function: Function) -> Function:
    """``--species SYMBOL...`` of a potential: ``species`` as a tuple, empty by default."""
    return click.option(
        "--species",
        cls=ManyValues,
        metavar="SYMBOL...",
        callback=known_symbols,
        help="Elements of the potential's species in order; by default those that its file names.",
    )(function)


def json_option(function: Function) -> Function:
    """``--json``: the command receives ``as_json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
    )(function)


def directory_argument(function: Function) -> Function:
    """``DIRECTORY`` of a campaign, the current one by default: ``directory`` as a Path."""
    return click.argument(
        "directory", type=click.Path(file_okay=False, path_type=Path), default=Path()
    )(function)


def without_secret(_ctx: click.Context, _parameter: click.Parameter, uri: str | None) -> str | None:
    """Callback of ``--db``: every user of the machine sees the command lines of all others."""
    from hullscreen.database.addresses import URI_VARIABLE, has_secret

    if uri is not None and has_secret(uri):
        raise click.BadParameter(
            "the URI holds a password, which others can read on a command line: put it into a file "
            "of mode 0600 and name that as [database] uri_file, or into the environment variable "
            f"{URI_VARIABLE}"
        )
    return uri


def database_option(
    function: Function, said: str = "MongoDB server to use instead of the one in hullscreen.toml"
) -> Function:
    """``--db URI``: ``database_uri``, or None for what hullscreen.toml says."""
    return click.option(
        "--db",
        "database_uri",
        metavar="URI",
        callback=without_secret,
        help=f"{said}; without a password.",
    )(function)


def output_option(function: Function) -> Function:
    """``--output FILE``: ``output`` as a Path."""
    return click.option(
        "--output",
        "-o",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File to write.",
    )(function)
