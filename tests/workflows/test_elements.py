"""Element symbols as typed."""

import pytest
from ase.data import chemical_symbols

from hullscreen.potentials.errors import InputError
from hullscreen.workflows.elements import SYMBOLS, check_elements, nearest_symbol


def test_symbols_are_those_of_ase():
    assert list(SYMBOLS) == chemical_symbols[1:]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("cu", "Cu"), ("PD", "Pd"), ("copper", "Cu"), ("Aluminum", "Al"), ("Ptt", "Pt"), ("??", None)],
)
def test_nearest_symbol(typed, meant):
    assert nearest_symbol(typed) == meant


@pytest.mark.parametrize(
    ("symbols", "said"),
    [
        ([], "0 came: none"),
        (["Cu"], "1 came: Cu"),
        (["Cu", "Pd", "Ag", "Au", "Pt"], "5 came"),
        (["Cu", "Pd", "Cu"], "Cu is named twice"),
        (["Cu", "pd"], 'did you mean "Pd"'),
    ],
)
def test_refused(symbols, said):
    with pytest.raises(InputError, match=said):
        check_elements(symbols)


def test_accepted_in_the_given_order():
    assert check_elements(["Pd", "Cu"]) == ("Pd", "Cu")
