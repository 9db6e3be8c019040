"""FireWorks' documents under other numbers: each database counts Fireworks and launches from 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# What a worker elsewhere had in hand: nobody here has.
IN_HAND = {"RESERVED": "READY", "RUNNING": "READY"}

Document = dict[str, Any]


@dataclass(frozen=True)
class Shift:
    """What is added to the numbers of a dump's Fireworks and launches."""

    fw: int
    launch: int

    def firework(self, document: Document) -> Document:
        """A Firework under its new number, in nobody's hands."""
        state = document["state"]
        launches = [n + self.launch for n in document["launches"]]
        archived = [n + self.launch for n in document.get("archived_launches", [])]
        if state in IN_HAND:
            launches, archived = [], [*archived, *launches]
        return {
            **document,
            "fw_id": document["fw_id"] + self.fw,
            "launches": launches,
            "archived_launches": archived,
            "state": IN_HAND.get(state, state),
        }

    def launch_of(self, document: Document) -> Document:
        """A launch under its new number; one that was under way has ended."""
        state = document["state"]
        return {
            **document,
            "launch_id": document["launch_id"] + self.launch,
            "fw_id": document["fw_id"] + self.fw,
            "state": "FIZZLED" if state in IN_HAND else state,
        }

    def workflow(self, document: Document) -> Document:
        """A workflow whose links and states are those of the new numbers, locked by nobody."""

        def by_number(old: dict[str, Any]) -> dict[str, Any]:
            return {str(int(number) + self.fw): value for number, value in old.items()}

        def links(old: dict[str, list[int]]) -> dict[str, list[int]]:
            return by_number({n: [one + self.fw for one in others] for n, others in old.items()})

        changed = {
            **document,
            "nodes": [number + self.fw for number in document["nodes"]],
            "links": links(document["links"]),
            "parent_links": links(document["parent_links"]),
            "fw_states": by_number(
                {n: IN_HAND.get(state, state) for n, state in document["fw_states"].items()}
            ),
            "state": "RUNNING" if document["state"] == "RESERVED" else document["state"],
        }
        changed.pop("locked", None)
        return changed
