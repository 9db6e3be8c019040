"""What a person looks for among a campaign's structures, as a query of the database."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pymatgen.core import Composition
from pymatgen.symmetry.groups import sg_symbol_from_int_number

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import TOO_FAR
from hullscreen.database.structure_queries import RELAXED_STAGES
from hullscreen.potentials.errors import InputError
from hullscreen.workflows.campaign import FINAL_STAGE
from hullscreen.workflows.job_states import dft_states
from hullscreen.workflows.refinement import FAILED, QUARANTINED, TOO_HIGH, TWIN, TWIN_OF_FAILED
from hullscreen.workflows.rounds import UNCONVERGED

N_SPACE_GROUPS = 230
KEPT = "kept"
# Short names of the reasons for which structures are left behind.
REASONS = {
    "height": [TOO_FAR],
    "unconverged": [UNCONVERGED],
    "single-point": [TOO_HIGH],
    "failed": [FAILED],
    "quarantined": [QUARANTINED],
    "twin": [TWIN, TWIN_OF_FAILED],
}
# Those for which a screen drops what it has relaxed.
BY_POTENTIAL = {"height", "unconverged", "twin"}
DROPPING_STAGES = (*RELAXED_STAGES, FINAL_STAGE)
Query = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which structures are looked for; what is None does not matter.

    Attributes
    ----------
    formula
        Any formula of the composition; compared after reduction.
    structure_index
        Place in the pool.
    max_energy_above_hull, min_energy_above_hull
        In eV/atom; structures whose height is not known do not match.
    stage
        The stage that was reached: 1, 2, 3 (final).
    stable_only
        Only what is on the hull of DFT energies.
    chemsys
        Elements joined by hyphens, in any order; exactly these.
    nelements
        Number of different elements.
    space_group
        Symbol or number of what DFT has relaxed; blanks and underscores do not matter.
    prototype
        The name, or a part of names.
    outcome
        How the last relaxation with a potential ended.
    min_grade, max_grade
        Of the largest extrapolation grade on the way of that relaxation.
    job_state
        One of `hullscreen.workflows.job_states.STATES`.
    dropped
        One of `REASONS`, or `KEPT`: not dropped.
    """

    formula: str | None = None
    structure_index: int | None = None
    max_energy_above_hull: float | None = None
    stage: int | None = None
    stable_only: bool = False
    chemsys: str | None = None
    nelements: int | None = None
    min_energy_above_hull: float | None = None
    space_group: str | None = None
    prototype: str | None = None
    outcome: str | None = None
    min_grade: float | None = None
    max_grade: float | None = None
    job_state: str | None = None
    dropped: str | None = None

    @property
    def has_height(self) -> bool:
        """Whether only structures match whose height above the hull is known."""
        return self.min_energy_above_hull is not None or self.max_energy_above_hull is not None

    @property
    def heights(self) -> Query:
        """The range of heights above the hull, eV/atom; of known ones at least."""
        least = 0.0 if self.min_energy_above_hull is None else self.min_energy_above_hull
        most = self.max_energy_above_hull
        return {"$gte": least} if most is None else {"$gte": least, "$lte": most}


def query_of(store: CampaignStore, wanted: Wanted) -> Query:
    """Everything that is wanted but the height, as a query.

    Raises
    ------
    InputError
        A formula, system or space group is none, or holds elements that the campaign has not.
    """
    elements: list[str] = list(store.campaign()["elements"])
    query: Query = {}
    if wanted.formula is not None:
        query["formula_pretty"] = reduced_formula(wanted.formula, elements)
    if wanted.chemsys is not None:
        query["chemsys"] = _system(wanted.chemsys, elements)
    if wanted.nelements is not None:
        # By systems, for which there is an index.
        query |= _among(query, "chemsys", _systems(elements, wanted.nelements))
    if wanted.structure_index is not None:
        query["index"] = wanted.structure_index
    if wanted.stage is not None:
        query["stage"] = wanted.stage
    if wanted.stable_only:
        query["is_stable"] = True
    if wanted.space_group is not None:
        query["symmetry.number"] = _space_group(wanted.space_group)
    if wanted.prototype is not None:
        query["prototype"] = _prototype(store, wanted.prototype)
    if wanted.outcome is not None:
        # With the stages, so that the index of outcomes serves.
        query |= {"relaxed.stage": {"$in": list(RELAXED_STAGES)}, "relaxed.outcome": wanted.outcome}
    grades = {"$gte": wanted.min_grade, "$lte": wanted.max_grade}
    if given := {name: grade for name, grade in grades.items() if grade is not None}:
        query["relaxed.highest_grade"] = given
    if wanted.job_state is not None:
        states = dft_states(store)
        found = [index for index, state in states.items() if state == wanted.job_state]
        query |= _among(query, "index", found)
    if wanted.dropped == KEPT:
        query |= {"dropped.stage": None, "dropped": {"$exists": False}}
    elif wanted.dropped is not None:
        query["dropped.stage"] = {"$in": list(DROPPING_STAGES)}
        query["dropped.reason"] = {"$in": REASONS[wanted.dropped]}
        if wanted.stage in RELAXED_STAGES and wanted.dropped in BY_POTENTIAL:
            # What a screen drops has come no further: its index alone is enough.
            query["dropped.stage"] = query.pop("stage")
    return query


def _among(query: Query, name: str, values: Sequence[Any]) -> Query:
    """A field's condition: one of these values, and the one that was wanted already if any."""
    if name in query:
        values = [value for value in values if value == query[name]]
    return {name: {"$in": list(values)}}


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for a message: the known name that is most like a wrong one."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"the nearest known one is {near[0]!r}" if near else "there is none"


def reduced_formula(text: str, elements: Sequence[str]) -> str:
    """A formula of some of these elements as the database has it.

    Raises
    ------
    InputError
        It is none, or holds elements that the campaign has not.
    """
    try:
        composition = Composition(text)
        symbols = {str(element) for element in composition.elements}
        reduced = str(composition.reduced_formula)
    # Numbers of atoms may be infinite, brackets too deep.
    except (ValueError, KeyError, OverflowError, RecursionError) as error:
        raise InputError(f"{text!r} is no chemical formula; expected one such as CuPd3") from error
    if not symbols or not symbols <= set(elements):
        raise InputError(
            f"{text!r} is no formula of this campaign; expected one of {', '.join(elements)}"
        )
    return reduced


def _system(text: str, elements: Sequence[str]) -> str:
    """A chemical system as the database has it: symbols in alphabetical order."""
    symbols = text.split("-")
    if not set(symbols) <= set(elements):
        raise InputError(
            f"{text!r} is no chemical system of this campaign; expected some of "
            f"{', '.join(elements)} with hyphens between them, such as {'-'.join(sorted(elements))}"
        )
    return "-".join(sorted(set(symbols)))


def _systems(elements: Sequence[str], n: int) -> list[str]:
    return ["-".join(symbols) for symbols in combinations(sorted(elements), n)]


def _space_group(text: str) -> int:
    """Number of a space group from its number or its symbol.

    Raises
    ------
    InputError
        There is no such group.
    """
    if re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= N_SPACE_GROUPS:
        return int(text)
    symbols = {
        _plain(sg_symbol_from_int_number(number)): number for number in range(1, N_SPACE_GROUPS + 1)
    }
    number = symbols.get(_plain(text))
    if number is None:
        raise InputError(
            f"{text!r} is no space group; expected a number from 1 to {N_SPACE_GROUPS} or a symbol "
            f"such as Fm-3m; {nearest(_plain(text), symbols)}"
        )
    return number


def _plain(symbol: str) -> str:
    return re.sub(r"[\s_]", "", symbol)


def _prototype(store: CampaignStore, text: str) -> str | Query:
    """The prototype of this name; if none has it, those with these letters in their names."""
    if "\0" in text:
        raise InputError(f"{text!r} is no name of a prototype: names hold no null character")
    if store.number_of({"prototype": text}):
        return text
    return {"$regex": re.escape(text)}
