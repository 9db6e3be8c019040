"""What is changed when a calculation of a code that works through files fails, and what was.

A calculation's journal stands in its folder, so one that was killed goes on with the corrections
that it had, from where its relaxation had come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hullscreen.dft_adapters.atomic_json import write_json
from hullscreen.potentials.structures import FloatArray

JOURNAL_FILE = "corrections.json"
MAX_CORRECTIONS = 5


@dataclass(frozen=True)
class Correction:
    """A change that may help after a failure of one kind. None changes converged energies.

    Attributes
    ----------
    name
        What is done, as a phrase: "slower mixing".
    changes
        Entries of the input by namelist or section, on top of everything else.
    continues
        From where: ``"afresh"`` from the start, ``"geometry"`` from where the relaxation had come,
        ``"scratch"`` from the restart files of the code.
    """

    name: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    continues: Literal["afresh", "geometry", "scratch"] = "afresh"


@dataclass(frozen=True)
class Reached:
    """Where a relaxation that did not end had come.

    Attributes
    ----------
    cell, positions
        In Å, shapes (3, 3) and (n_atoms, 3).
    n_evaluations
        Energy evaluations it took.
    """

    cell: FloatArray
    positions: FloatArray
    n_evaluations: int

    def is_same(self, other: Reached) -> bool:
        """Whether both were read from the same files."""
        return (
            self.n_evaluations == other.n_evaluations
            and np.array_equal(self.cell, other.cell)
            and np.array_equal(self.positions, other.positions)
        )


@dataclass
class Journal:
    """What a calculation has been through.

    Attributes
    ----------
    path
        Where it is kept.
    inputs_hash
        The calculation it belongs to.
    applied
        Reason of each failure that was corrected, and which of the corrections for it was tried.
    begun
        Whether an executable was started for it.
    reached
        Geometry from which a relaxation goes on, None for the start.
    n_evaluations, cpu_seconds
        Of the attempts before.
    """

    path: Path
    inputs_hash: str
    applied: list[tuple[str, int]] = field(default_factory=list)
    begun: bool = False
    reached: Reached | None = None
    n_evaluations: int = 0
    cpu_seconds: float = 0.0

    @classmethod
    def read(cls, path: Path, inputs_hash: str) -> Journal:
        """The journal in a folder; a new one if there is none for these inputs."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["inputs_hash"] != inputs_hash:
                return cls(path, inputs_hash)
            reached = document["reached"]
            return cls(
                path,
                inputs_hash,
                applied=[(str(reason), int(number)) for reason, number in document["applied"]],
                begun=True,
                reached=reached
                and Reached(np.array(reached["cell"]), np.array(reached["positions"]), 0),
                n_evaluations=int(document["n_evaluations"]),
                cpu_seconds=float(document["cpu_seconds"]),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return cls(path, inputs_hash)

    def write(self) -> None:
        """Keep it."""
        reached = self.reached
        write_json(
            self.path,
            {
                "inputs_hash": self.inputs_hash,
                "applied": self.applied,
                "reached": reached
                and {"cell": reached.cell.tolist(), "positions": reached.positions.tolist()},
                "n_evaluations": self.n_evaluations,
                "cpu_seconds": self.cpu_seconds,
            },
        )

    def go_on_from(self, reached: Reached | None) -> None:
        """Begin the next attempt where a relaxation had come."""
        if reached is not None:
            self.reached = reached
        self.n_evaluations += reached.n_evaluations if reached else 1

    def next_correction(
        self, table: Mapping[str, Sequence[Correction]], reason: str
    ) -> Correction | None:
        """The first correction for a failure that was not tried yet, if any is left."""
        if len(self.applied) >= MAX_CORRECTIONS:
            return None
        tried = sum(known == reason for known, _ in self.applied)
        known = table.get(reason, ())
        return known[tried] if tried < len(known) else None

    def add(self, reason: str) -> None:
        """Note that the next correction for a failure is applied."""
        self.applied.append((reason, sum(known == reason for known, _ in self.applied)))

    def in_force(self, table: Mapping[str, Sequence[Correction]]) -> list[Correction]:
        """All corrections applied so far; later ones win."""
        return [
            table[reason][number]
            for reason, number in self.applied
            if number < len(table.get(reason, ()))
        ]

    def sentences(self, table: Mapping[str, Sequence[Correction]]) -> tuple[str, ...]:
        """The corrections for people: "unconverged_scf: slower mixing"."""
        reasons = [reason for reason, number in self.applied if number < len(table.get(reason, ()))]
        corrections = self.in_force(table)
        return tuple(f"{r}: {c.name}" for r, c in zip(reasons, corrections, strict=True))
