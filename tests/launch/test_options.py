"""Options that take several words, and those that commands share."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hullscreen.launch.options import (
    FileToRead,
    ManyValues,
    database_option,
    directory_argument,
    json_option,
    output_option,
    species_option,
)


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--elements", "-e", cls=ManyValues)
@click.option("--counts", cls=ManyValues, type=int)
@click.option("--flag", is_flag=True)
def many(paths, elements, counts, flag):
    click.echo(repr((paths, elements, counts, flag)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ((), (), (), False)),
        ("--elements Cu", ((), ("Cu",), (), False)),
        ("--elements Cu Ni Pt", ((), ("Cu", "Ni", "Pt"), (), False)),
        ("--elements=Cu Ni", ((), ("Cu", "Ni"), (), False)),
        ("-e Cu Ni --flag", ((), ("Cu", "Ni"), (), True)),
        ("a --elements Cu Ni --counts 1 2", (("a",), ("Cu", "Ni"), (1, 2), False)),
        ("--elements Cu --flag --elements Ni Pt", ((), ("Cu", "Ni", "Pt"), (), True)),
        ("--elements Cu Ni -- a b", (("a", "b"), ("Cu", "Ni"), (), False)),
    ],
)
def test_values_reach_to_the_next_option(words, expected):
    done = CliRunner().invoke(many, words.split())
    assert done.output.strip() == repr(expected)


def test_an_option_without_a_value_is_refused():
    done = CliRunner().invoke(many, ["--elements"])
    assert done.exit_code == 2
    assert "--elements" in done.output


def test_every_value_is_checked():
    done = CliRunner().invoke(many, ["--counts", "1", "two"])
    assert done.exit_code == 2
    assert "two" in done.output


@pytest.mark.parametrize("words", ["--elements Cu,Pd", "--elements Cu, Pd", "--elements Cu ,Pd"])
def test_commas_bring_a_hint_at_blanks(words):
    done = CliRunner().invoke(many, words.split())
    assert done.exit_code == 2
    assert "--elements Cu Pd" in done.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("Cu Au", "('Cu', 'Au')"),
        ("X0 X1", "('X0', 'X1')"),
        ("Cu Xx", "'Xx' is not an element; the nearest symbol is"),
        ("cu", "the nearest symbol is 'Cu'"),
        ("Cu Cu", "Cu is named more than once"),
    ],
)
def test_species_are_elements_or_numbered(words, sentence):
    @click.command()
    @species_option
    def shown(species):
        click.echo(repr(species))

    done = CliRunner().invoke(shown, ["--species", *words.split()])
    assert sentence in done.output
    assert done.exit_code == (0 if sentence.startswith("(") else 2)


def test_files_to_read_are_not_empty(tmp_path):
    @click.command()
    @click.argument("path", type=FileToRead())
    def shown(path):
        click.echo(repr(path))

    file = tmp_path / "a.xyz"
    # One that is missing is left to whoever reads it.
    assert CliRunner().invoke(shown, [str(file)]).output.strip() == repr(file)
    file.touch()
    done = CliRunner().invoke(shown, [str(file)])
    assert done.exit_code == 2
    assert "a.xyz is empty" in done.output


def test_shared_options():
    @click.command()
    @directory_argument
    @database_option
    @output_option
    @json_option
    def shared(directory, database_uri, output, as_json):
        click.echo(repr((directory, database_uri, output, as_json)))

    words = ["there", "--db", "mongodb://host", "--output", "file", "--json"]
    expected = (Path("there"), "mongodb://host", Path("file"), True)
    assert CliRunner().invoke(shared, words).output.strip() == repr(expected)
    assert CliRunner().invoke(shared, []).output.strip() == repr((Path(), None, None, False))
