"""The page about exports: its commands and its Python run, and no format is missing."""

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from hullscreen.launch.exports.formats import FORMATS

PAGE = (Path(__file__).parents[3] / "launch" / "EXPORTS.md").read_text(encoding="utf-8")


def test_every_format_and_ending_is_in_the_table():
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    # The first table has four columns.
    table = {n: row[3] for row in rows if len(row) == 6 for n in re.findall(r"`([\w-]+)`", row[1])}
    assert table.keys() == FORMATS.keys()
    for name, form in FORMATS.items():
        assert f"`{form.suffixes[0]}`" in table[name], name


def test_what_it_says_can_be_done(directory, call, tmp_path):
    commands = re.findall(r"(?m)^    hullscreen (export cu-pd .*)$", PAGE)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(commands) >= 7
    assert len(blocks) >= 6
    with contextlib.chdir(tmp_path):
        for words in map(shlex.split, commands):
            words[1] = str(directory)
            code, out, err = call(*words)
            assert (code, out) == (0, ""), err
        for block in blocks:
            exec(compile(block, "EXPORTS.md", "exec"), {})  # noqa: S102  our own page


@pytest.mark.parametrize(
    "option",
    [
        "--stable",
        "--max-energy-above-hull",
        "--formula",
        "--number",
        "--stage",
        "--potential",
        "--width",
        "--force",
        "--overwrite",
    ],
)
def test_its_options_are_those_of_the_command(call, option):
    assert f"`{option}" in PAGE
    assert option in call("export", "--help")[1]
