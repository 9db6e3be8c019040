"""DFT calculations as MongoDB keeps them. Energies in eV, lengths in Å."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from hullscreen.database.documents import Document, Geometry, now, unpack
from hullscreen.potentials.structures import FloatArray


class Calculation(Document):
    """What was calculated, keyed by its content."""

    @classmethod
    def from_bson(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `to_bson`."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        values["geometry"] = Geometry.from_bson(values["geometry"])
        for name in {"numbers", "corrections"} & values.keys():
            values[name] = tuple(values[name])
        for name in {"forces", "stress"} & values.keys():
            values[name] = None if values[name] is None else unpack(values[name])
        return cls(**values)


@dataclass(frozen=True)
class DFTDocument(Calculation):
    """A DFT calculation, keyed by its content and shared by campaigns.

    Attributes
    ----------
    key
        Content of structure and settings, and the kind of calculation.
    kind
        ``single_point`` or ``relaxation``.
    state
        ``done``, ``failed`` or ``quarantined``; of the latter two with the ``reason``. What is
        quarantined has a result that cannot be right: nothing is learnt from it.
    campaign, purpose, structure_index
        Who computed it, and what for.
    n_evaluations
        Energy evaluations that were computed for it, not counting those that were stored before.
    corrections
        What went wrong on the way and what was changed: "unconverged_scf: slower mixing".
    limits
        Of a failure: hash of all settings it had, those included that change no energies, such as
        time limits. With others it might have come to an end.
    judged, judged_by
        How it was judged (``range``, ``contradiction``, ``relaxation``, ``by hand``), and by which
        round of which campaign; empty if nobody doubted it.
    """

    key: str
    kind: str
    state: str
    campaign: str
    purpose: str
    structure_index: int
    chemsys: str
    engine: str
    numbers: tuple[int, ...]
    geometry: Geometry
    energy: float | None = None
    forces: FloatArray | None = None
    stress: FloatArray | None = None
    converged: bool = False
    reason: str = ""
    n_evaluations: int = 0
    cpu_seconds: float = 0.0
    corrections: tuple[str, ...] = ()
    limits: str = ""
    judged: str = ""
    judged_by: str = ""
    created_at: datetime = field(default_factory=now)


@dataclass(frozen=True)
class ReferenceRelaxation(Calculation):
    """A prototype relaxed with the DFT engine from its start geometry, to judge a campaign by.

    Attributes
    ----------
    key
        Content of engine, start geometry and tolerances.
    state
        ``done`` or ``failed``.
    numbers, geometry
        Atomic numbers, and where the relaxation ended; the start if nothing came of it.
    energy
        Total energy there, eV; also of a relaxation that did not converge.
    reason, message
        Why it failed: a key, such as ``collapsed``, and a sentence.
    n_evaluations
        Every energy evaluation that was begun, those of failures included.
    max_steps
        How many were allowed.
    cpu_seconds, wall_seconds
        What it took.
    """

    key: str
    state: str
    engine: str
    numbers: tuple[int, ...]
    geometry: Geometry
    energy: float | None
    reason: str
    message: str
    n_evaluations: int
    max_steps: int
    cpu_seconds: float
    wall_seconds: float
    created_at: datetime = field(default_factory=now)
