"""What an export holds: the structures that were asked for, and where they come from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.provenance import provenance
from hullscreen.workflows.results import HullResult, final_hull
from hullscreen.workflows.structure_filters import reduced_formula

# Control characters break lines, and lone surrogates are no text that can be written.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# Formats that show one potential or several.
OF_POTENTIALS = ("potential", "training-set")


@dataclass(frozen=True)
class Wanted:
    """What is asked for; None does not matter.

    Attributes
    ----------
    stable_only
        Of the structures that DFT has relaxed, the lowest of each stable composition.
    max_energy_above_hull
        In eV/atom.
    formula
        Any formula of the composition.
    structure_index
        Place in the pool.
    stage, potential
        Of potentials: the stage, 1 or 2, or the round that fitted it.
    width
        Of a figure: "single" or "double" column.
    """

    stable_only: bool = False
    max_energy_above_hull: float | None = None
    formula: str | None = None
    structure_index: int | None = None
    stage: int | None = None
    potential: int | None = None
    width: str = "single"


@dataclass(frozen=True)
class Contents:
    """What a format is given to write.

    Attributes
    ----------
    store
        The campaign's documents.
    wanted
        What was asked for.
    provenance
        See `hullscreen.workflows.provenance.provenance`.
    hull
        All that DFT has relaxed; None for formats that show something else.
    entries
        Those of the hull that were asked for, stable ones first.
    """

    store: CampaignStore
    wanted: Wanted
    provenance: dict[str, Any]
    hull: HullResult | None = None
    entries: tuple[Entry, ...] = ()

    @property
    def provenance_text(self) -> str:
        """Where this comes from, as JSON on one line."""
        return json.dumps(self.provenance)

    @property
    def origin(self) -> str:
        """Where this comes from in a few words, for a comment."""
        known = self.provenance
        state = "" if known["finished"] else ", provisional"
        return (
            f"hullscreen {known['versions']['hullscreen']}, campaign {known['campaign']} "
            f"({known['chemsys']}, {known['dft_engine']['name']}{state}), {known['exported_at']}"
        )

    def require_hull(self) -> HullResult:
        """The hull, of a format that shows it."""
        assert self.hull is not None, "formats of the hull are given it"  # noqa: S101
        return self.hull


def check_wanted(wanted: Wanted, name: str, *, of_hull: bool) -> None:
    """Refuse what the format of this name could only ignore.

    Raises
    ------
    InputError
        Structures are chosen for a format of potentials, or a potential for one of structures.
    """
    of_structures = {
        "--stable": wanted.stable_only,
        "--max-energy-above-hull": wanted.max_energy_above_hull is not None,
        "--formula": wanted.formula is not None,
        "--number": wanted.structure_index is not None,
    }
    of_potentials = {
        "--stage": wanted.stage is not None,
        "--potential": wanted.potential is not None,
    }
    senseless = {} if of_hull else dict.fromkeys(of_structures, "relaxed structures")
    if name not in OF_POTENTIALS:
        senseless |= dict.fromkeys(of_potentials, "a potential")
    given = of_structures | of_potentials
    for option, what in senseless.items():
        if given[option]:
            raise InputError(f"{option} chooses {what}, and {name} shows none; leave it out")


def collect(store: CampaignStore, wanted: Wanted, *, of_hull: bool) -> Contents:
    """Read from the database what an export needs.

    Raises
    ------
    CampaignError
        The format shows the hull, and there is none yet.
    InputError
        No structure matches, or the formula is none of the campaign's.
    """
    origin = provenance(store)
    if not of_hull:
        return Contents(store, wanted, origin)
    hull = final_hull(store)
    entries = _selected(hull, wanted)
    if not entries:
        raise InputError(
            f"none of the {len(hull.entries)} structures that DFT has relaxed is what was asked "
            "for; leave out some of --stable, --max-energy-above-hull, --formula and --number"
        )
    return Contents(store, wanted, origin, hull, entries)


def one_line(text: str) -> str:
    """A text that breaks no line of a file: what is unreadable becomes the sign for that.

    Control characters are, and a text of nothing but blanks.
    """
    line = _UNPRINTABLE.sub("\ufffd", text)
    return line if line.strip() else "\ufffd"


def _selected(hull: HullResult, wanted: Wanted) -> tuple[Entry, ...]:
    highest, index = wanted.max_energy_above_hull, wanted.structure_index
    formula = None if wanted.formula is None else reduced_formula(wanted.formula, hull.elements)
    stable = {entry.structure_index for entry in hull.stable}
    return tuple(
        entry
        for entry in hull.entries
        if (highest is None or entry.energy_above_hull <= highest)
        and (index is None or entry.structure_index == index)
        and (formula is None or entry.formula_pretty == formula)
        and (not wanted.stable_only or entry.structure_index in stable)
    )
