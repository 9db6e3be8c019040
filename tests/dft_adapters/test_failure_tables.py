"""The tables of failures and corrections, and the page that shows them."""

import re
from pathlib import Path

import pytest

from hullscreen.dft_adapters import espresso_failures, vasp_failures
from hullscreen.dft_adapters.corrections import MAX_CORRECTIONS

TABLES = pytest.mark.parametrize("table", [espresso_failures, vasp_failures])
PAGE = Path(__file__).parents[2] / "dft_adapters" / "README.md"
# What a converged result does not depend on.
HARMLESS = {
    "electrons": {
        "mixing_beta", "mixing_mode", "mixing_ndim", "electron_maxstep", "diagonalization",
        "startingwfc",
    },
    "system": {"nosym", "nbnd"},
    "cell": {"cell_factor"},
    "ions": {"trust_radius_ini", "trust_radius_min"},
}  # fmt: skip


@TABLES
def test_every_row_has_a_meaning_and_a_source(table):
    for failure in table.FAILURES:
        re.compile(failure.pattern)
        assert failure.source, failure
        # The end of the sentence "the calculation in FOLDER …".
        assert failure.meaning[0].islower(), failure
        assert not failure.meaning.endswith("."), failure
    assert len(table.FAILURES) >= 12


@TABLES
def test_what_is_of_the_machine_is_never_corrected(table):
    """The same change would be made to thousands of calculations that need none."""
    of_the_machine = {failure.reason for failure in table.FAILURES if failure.of_the_machine}
    assert not of_the_machine & set(table.CORRECTIONS)


@TABLES
def test_a_ladder_fits_into_the_allowance(table):
    for reason, corrections in table.CORRECTIONS.items():
        assert 1 <= len(corrections) <= MAX_CORRECTIONS, reason


def test_no_correction_changes_what_converged_calculations_give():
    for corrections in espresso_failures.CORRECTIONS.values():
        for correction in corrections:
            for namelist, entries in correction.changes.items():
                assert set(entries) <= HARMLESS[namelist], correction


@TABLES
def test_the_page_shows_every_reason(table):
    shown = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    reasons = {failure.reason for failure in table.FAILURES} | set(table.CORRECTIONS)
    assert reasons <= shown
