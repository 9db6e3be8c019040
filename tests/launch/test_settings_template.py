"""The written hullscreen.toml and the README's table say what the settings are."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hullscreen.launch.settings import from_tables
from hullscreen.launch.settings_template import (
    documented_fields,
    markdown_table,
    render,
    toml_value,
)

SETTINGS = from_tables(
    {
        "campaign": {"name": "a-b", "elements": ["Cu", "Ni", "Pt"], "seed": 3},
        "prototypes": {"lattices": ["9R"], "aflow": False},
        "dft": {"arguments": {"file name": 'C:\\x "y"', "list": [1, 2.5, True]}},
    }
)

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab .\"'é\n"), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_what_is_written_is_read_back():
    assert from_tables(tomllib.loads(render(SETTINGS))) == SETTINGS


@given(VALUES)
def test_any_value_is_read_back(value):
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


def test_every_key_has_a_comment_with_its_default():
    lines = render(SETTINGS).splitlines()
    for table, key, description, default in documented_fields():
        header = lines.index(f"[{table}]")
        at = next(i for i in range(header, len(lines)) if lines[i].startswith(f"{key} = "))
        first = at
        while lines[first - 1].startswith("#"):
            first -= 1
        comment = " ".join(line.removeprefix("# ") for line in lines[first:at])
        told = "" if default is None else f" Default: {toml_value(default)}."
        assert comment == description + told


def test_lines_fit_a_terminal():
    assert max(map(len, render(SETTINGS).splitlines())) <= 96


@pytest.mark.parametrize("row", list(documented_fields()), ids=lambda row: f"{row[0]}.{row[1]}")
def test_every_setting_is_described(row):
    _, key, description, _ = row
    assert description.endswith(".")
    assert len(description.split()) >= 3
    for suffix, unit in (
        ("_angstrom", "Å"),
        ("kpoint_spacing", "1/Å"),
        ("_ry", "Ry"),
        ("_gpa", "GPa"),
        ("_s", " s "),
        ("force_tolerance", "eV/Å"),
    ):
        assert not key.endswith(suffix) or unit in description, f"{key} names no unit"


def test_markdown_has_a_row_for_each_setting():
    assert len(markdown_table().splitlines()) == 2 + len(list(documented_fields()))
