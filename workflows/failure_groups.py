"""Failed steps by their reason: hundreds of them often have one cause, and one remedy."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from hullscreen.database.launchpad_state import FailedFirework

DFT = "dft"
# Exceptions of what the next run tries again by itself.
NOT_THE_STEPS_FAULT = {
    "EngineMissingError",
    "DatabaseError",
    "ClaimLostError",
    "StepInterruptedError",
    "KeyboardInterrupt",
    "LockedWorkflowError",
    "AutoReconnect",
    "NetworkTimeout",
    "ServerSelectionTimeoutError",
    "NotPrimaryError",
    "WriteConcernError",
}
NOT_RECORDED = "no reason is recorded"
# "2 of 20 calculations failed: structure 41: ...; structure 57: ..." is grouped by the first.
_FIRST_OF_SEVERAL = re.compile(r"^\d+ of \d+ calculations failed: structure \d+: (.*)$", re.DOTALL)
_NEXT_STRUCTURE = re.compile(r"; structure \d+: ")
_PATH = re.compile(r"\S*/\S+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class FailureGroup:
    """Failed steps that failed for one reason.

    Attributes
    ----------
    category
        Kind of the steps.
    count
        Number of steps.
    example
        ``fw_id`` of the newest.
    reason
        Its sentence.
    passes
        Whether the next run tries again by itself: the steps are not to blame.
    """

    category: str
    count: int
    example: int
    reason: str
    passes: bool


def grouped(failed: Iterable[FailedFirework], elements: Collection[str]) -> list[FailureGroup]:
    """Failures by category and reason, the most frequent first.

    Reasons are the same if they differ in numbers, paths and formulas of ``elements`` alone.
    """
    groups: dict[tuple[str, str], list[FailedFirework]] = {}
    for one in failed:
        groups.setdefault((one.category, _kind(one.reason, elements)), []).append(one)
    found = [
        FailureGroup(
            category,
            len(members),
            members[0].fw_id,
            first_sentence(members[0].reason) or NOT_RECORDED,
            members[0].exception in NOT_THE_STEPS_FAULT,
        )
        for (category, _), members in groups.items()
    ]
    return sorted(found, key=lambda group: (-group.count, group.example))


def first_sentence(reason: str) -> str:
    """Of a job with several failed calculations, the reason of the first."""
    several = _FIRST_OF_SEVERAL.match(reason)
    return _NEXT_STRUCTURE.split(several[1])[0] if several else reason


def _kind(reason: str, elements: Collection[str]) -> str:
    """A reason without what differs from structure to structure."""
    symbols = "|".join(sorted(map(re.escape, elements), key=len, reverse=True))
    formula = re.compile(rf"\b(?:(?:{symbols})\d*)+\b") if symbols else None
    text = _PATH.sub("PATH", first_sentence(reason))
    if formula is not None:
        text = formula.sub("FORMULA", text)
    return _NUMBER.sub("NUMBER", text)
