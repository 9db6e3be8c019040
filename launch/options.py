"""Options and arguments that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

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


def _taking_more(take_one: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def take_all(value: Any, state: Any) -> None:
        take_one(value, state)
        while state.rargs and not state.rargs[0].startswith("-"):
            take_one(state.rargs.pop(0), state)

    return take_all


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


def database_option(function: Function) -> Function:
    """``--db URI``: ``database_uri``, or None for what hullscreen.toml says."""
    return click.option(
        "--db",
        "database_uri",
        metavar="URI",
        help="MongoDB server to use instead of the one in hullscreen.toml.",
    )(function)


def output_option(function: Function) -> Function:
    """``--output FILE``: ``output`` as a Path."""
    return click.option(
        "--output",
        "-o",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File to write.",
    )(function)
