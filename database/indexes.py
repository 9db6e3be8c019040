"""The indexes of all collections: every query goes along one, however many documents there are."""

from __future__ import annotations

from typing import Any

# Indexes of the structures that queries name themselves: MongoDB tries several and may well take
# one that makes it sort, or read, all structures of a stage again for every part of them.
BY_INDEX = ["campaign", "index"]
BY_ORDER = ["campaign", "stage", "relaxed.stage", "order"]
# With the potential, so that outcomes are counted without reading a structure.
BY_OUTCOME = ["campaign", "relaxed.stage", "relaxed.outcome", "relaxed.potential", "order"]
# With the stage, so that others' structures are not read.
BY_HEIGHT = ["campaign", "energy_above_hull", "index", "stage"]
# Those that begin with what a person asks for serve people who name no campaign as well.
BY_FORMULA = ["formula_pretty", "campaign", "energy_above_hull", "index", "stage"]
BY_CHEMSYS = ["chemsys", "campaign", "energy_above_hull", "index", "stage"]
BY_PROTOTYPE = ["prototype", "campaign", "index"]
BY_REASON = ["campaign", "dropped.stage", "dropped.reason"]
BY_STABILITY = ["is_stable", "campaign", "energy_above_hull", "index"]
BY_SPACE_GROUP = ["symmetry.number", "campaign", "energy_above_hull", "index"]
BY_GRADE = ["campaign", "relaxed.highest_grade", "index"]
# Grades from here on are in the index: what a potential knows has lower ones.
LOWEST_INDEXED_GRADE = 2.0
# Indexes that hold only documents which match: few structures have these fields, or such values.
PARTIAL: dict[tuple[str, ...], dict[str, Any]] = {
    tuple(BY_STABILITY): {"is_stable": {"$exists": True}},
    tuple(BY_SPACE_GROUP): {"symmetry.number": {"$exists": True}},
    tuple(BY_GRADE): {"relaxed.highest_grade": {"$gte": LOWEST_INDEXED_GRADE}},
}
INDEXES: dict[str, list[tuple[list[str], bool]]] = {
    # For each collection the fields of its indexes, and whether they are unique.
    "campaigns": [(["name"], True), (["created_at", "name"], False)],
    "structures": [
        (BY_INDEX, True),
        (BY_ORDER, False),
        (BY_OUTCOME, False),
        (BY_REASON, False),
        (BY_HEIGHT, False),
        (BY_FORMULA, False),
        (BY_CHEMSYS, False),
        (BY_PROTOTYPE, False),
        (BY_STABILITY, False),
        (BY_SPACE_GROUP, False),
        (BY_GRADE, False),
    ],
    "selected": [
        (["campaign", "round", "number"], True),
        (["campaign", "key"], False),
        (["campaign", "structure_index", "round", "number"], False),
    ],
    "rounds": [(["campaign", "number"], True)],
    "potentials": [(["campaign", "number"], True)],
    "dft_results": [
        (["key"], True),
        (["campaign", "purpose", "state"], False),
        (["engine", "kind", "created_at"], False),
        (["campaign", "created_at", "kind", "n_evaluations"], False),
        (["campaign", "structure_index"], False),
    ],
    "reference_relaxations": [(["key"], True)],
    "attempts": [(["key", "run"], True)],
    "claims": [(["campaign", "holder"], False)],
    "queue_jobs": [(["campaign", "ended_at"], False)],
}
