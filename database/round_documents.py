"""What the rounds of a campaign leave in MongoDB: themselves, their labels and potentials.

Energies in eV, lengths in Å.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hullscreen.database.documents import Document, Geometry, now
from hullscreen.potentials.structures import IntArray


@dataclass(frozen=True)
class Selected(Document):
    """A structure chosen for a DFT single point.

    Attributes
    ----------
    round
        The round that computes it; its potentials learn it from then on.
    purpose
        ``seed``, ``learn``, ``validate`` or ``refine``; ``borrowed`` from another campaign.
    structure_index
        The prototype it came from.
    grade, predicted_energy_per_atom
        Extrapolation grade and energy of the potential that chose it; None for the seed.
    key
        Content key of its DFT result.
    """

    campaign: str
    round: int
    number: int
    purpose: str
    structure_index: int
    grade: float | None
    predicted_energy_per_atom: float | None
    key: str
    species: IntArray
    geometry: Geometry


@dataclass(frozen=True)
class RoundDocument(Document):
    """One turn of the campaign: label, fit, relax, decide.

    Attributes
    ----------
    number
        Rounds count from zero; a potential has the number of its round.
    stage, purpose
        Stage 1, 2 or 3 and what the round is for: ``seed``, ``learn``, ``validate``, ``refine``,
        ``final``.
    potential
        Number of the potential that this round relaxes with; its own if it fits one.
    fits
        Whether it fits a potential.
    wave
        Structures with ``order`` below this are relaxed.
    again
        Whether structures that were relaxed before are relaxed again, from where they are.
    sigma
        The error estimate known when the round began.
    final_indices
        Structures to relax with DFT, the most promising first.
    submitted
        Whether its workflow is in the LaunchPad.
    predicted_hull, labelled_hull
        Corners of the hulls by which its decision dropped structures, where it did: of the
        potential's energies, and of DFT single points. Each has ``structure_index``,
        ``formula_pretty`` and ``energy_per_atom`` in eV/atom.
    """

    campaign: str
    number: int
    stage: int
    purpose: str
    potential: int
    fits: bool
    wave: int
    again: bool = False
    sigma: dict[str, Any] | None = None
    final_indices: tuple[int, ...] = ()
    submitted: bool = False
    predicted_hull: tuple[dict[str, Any], ...] = ()
    labelled_hull: tuple[dict[str, Any], ...] = ()
    created_at: datetime = field(default_factory=now)


# Of a hash, of which the first bytes are enough to tell labels apart.
LABEL_BYTES = 16


@dataclass(frozen=True)
class PotentialDocument(Document):
    """A fitted potential and its active set.

    Attributes
    ----------
    number
        The round that fitted it.
    text
        The ``.mtp`` file.
    active_rows
        The matrix of the active set, rows of n_parameters doubles.
    n_training, loss, condition
        Labelled structures, the fit's loss, and the condition number of its equations.
    lowest_energy_per_atom
        Of the labels, eV/atom: what relaxes far below has fallen into a hole of the potential. None
        in databases of earlier versions.
    energy_rmse, force_rmse
        Root mean square errors on the labels, eV/atom and eV/Å. None in databases of earlier
        versions.
    labels
        What tells each label that it was fitted to from all others, `LABEL_BYTES` bytes each, in
        their order. Empty in databases of earlier versions.
    """

    campaign: str
    number: int
    stage: int
    level: int
    text: str
    active_rows: bytes
    n_training: int
    loss: float
    condition: float
    lowest_energy_per_atom: float | None = None
    energy_rmse: float | None = None
    force_rmse: float | None = None
    labels: bytes = b""
    created_at: datetime = field(default_factory=now)
