"""What hullscreen keeps in MongoDB: one frozen dataclass per collection, arrays as BSON binary.

Fields carry the Materials Project's names where it has one. Energies in eV, lengths in Å.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import numpy as np

from hullscreen.potentials.structures import FloatArray, IntArray

SCHEMA_VERSION = 2

DOUBLES, INTEGERS = np.dtype("<f8"), np.dtype("<i4")
# Stored as they are; what is neither these nor below is left to MongoDB as well.
PLAIN = (str, int, float, bool, bytes, dict, datetime, type(None))


def now() -> datetime:
    """Present time in UTC, to the millisecond that BSON keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass(frozen=True)
class Geometry:
    """Cell (3, 3) and positions (n_atoms, 3) in Å."""

    cell: FloatArray
    positions: FloatArray

    def to_bson(self) -> dict[str, bytes]:
        """Little-endian doubles."""
        return {"cell": pack(self.cell), "positions": pack(self.positions)}

    @classmethod
    def from_bson(cls, value: Mapping[str, bytes]) -> Self:
        """The inverse of `to_bson`."""
        return cls(unpack(value["cell"]), unpack(value["positions"]))


def pack(array: FloatArray) -> bytes:
    """Doubles as bytes."""
    return np.asarray(array, dtype=DOUBLES).tobytes()


def unpack(data: bytes) -> FloatArray:
    """Rows of three doubles."""
    return np.frombuffer(data, dtype=DOUBLES).reshape(-1, 3).astype(np.float64)


def pack_species(species: IntArray) -> bytes:
    """Species indices as bytes."""
    return np.asarray(species, dtype=INTEGERS).tobytes()


def unpack_species(data: bytes) -> IntArray:
    """The inverse of `pack_species`."""
    return np.frombuffer(data, dtype=INTEGERS).astype(np.int32)


class Document:
    """Conversion that all documents share: fields by name, geometries and species packed."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_bson(self) -> dict[str, Any]:
        """The document as MongoDB stores it."""
        document: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            document[name] = value if type(value) in PLAIN else _packed(name, value)
        return document


def _packed(name: str, value: Any) -> Any:
    """A field that MongoDB cannot take, or not as compactly, as it is."""
    if isinstance(value, Document | Geometry):
        return value.to_bson()
    if name == "species":
        return pack_species(value)
    if isinstance(value, np.ndarray):
        return pack(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class CampaignDocument(Document):
    """One campaign.

    Attributes
    ----------
    name
        Its key; structures, rounds and potentials carry it.
    settings
        Tables of ``hullscreen.toml`` as they were when the campaign began.
    engine
        Name, fingerprint and content of the DFT engine: energies of another never meet these.
    directory
        Where calculations write their files.
    pool
        Prototypes by lattice.
    cpu_seconds
        Processor time by part.
    peak_memory_bytes
        Largest resident memory of a worker and of the embedded server.
    finished
        Whether the hull is final.
    doubts
        By round, why labels that look wrong were learnt nevertheless.
    labels_changed
        Results that were released or removed by hand since everything was screened.
    """

    name: str
    chemsys: str
    elements: tuple[str, ...]
    settings: dict[str, Any]
    engine: dict[str, Any]
    directory: str
    pool: dict[str, int] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    finished: bool = False
    doubts: dict[str, str] = field(default_factory=dict)
    labels_changed: int = 0
    schema_version: int = SCHEMA_VERSION
    created_at: datetime = field(default_factory=now)
    last_updated: datetime = field(default_factory=now)


@dataclass(frozen=True)
class Prototype(Document):
    """A structure of the pool as it was generated.

    Attributes
    ----------
    index
        Place in the pool.
    order
        Place in the order in which waves take structures.
    counts
        Atoms of each element of the campaign.
    chemsys, elements, nelements, composition
        Of the structure itself, as the Materials Project has them: symbols in alphabetical order,
        and atoms of each in the cell.
    stage
        The stage it has reached: 1, 2, 3 (final).
    """

    campaign: str
    index: int
    order: int
    prototype: str
    nsites: int
    counts: tuple[int, ...]
    formula_pretty: str
    chemsys: str
    elements: tuple[str, ...]
    nelements: int
    composition: dict[str, int]
    species: IntArray
    start: Geometry
    stage: int = 1
    last_updated: datetime = field(default_factory=now)


@dataclass(frozen=True)
class Relaxed(Document):
    """The relaxation of a structure with a potential.

    Attributes
    ----------
    stage, potential
        The stage, and the round whose potential it was.
    outcome
        How it ended, see `hullscreen.potentials.relaxation.Outcome`.
    energy_per_atom
        None where not even the start has an energy that can be used; ``geometry`` is the start.
    highest_grade
        Largest extrapolation grade on the way; the geometry of which is ``snapshot``.
    """

    stage: int
    potential: int
    outcome: str
    energy_per_atom: float | None
    evaluations: int
    grade: float
    highest_grade: float
    geometry: Geometry
    snapshot: Geometry | None = None

    def numbers(self) -> dict[str, Any]:
        """What is kept of every relaxation: all but the geometries."""
        return {name: getattr(self, name) for name in RELAXATION_FIELDS}


RELAXATION_FIELDS = (
    "stage", "potential", "outcome", "energy_per_atom", "evaluations", "grade", "highest_grade",
)  # fmt: skip


# A decision holds one of each structure that it drops.
@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a structure's energy, and from whom.

    Attributes
    ----------
    energy_per_atom, formation_energy_per_atom, energy_above_hull
        In eV/atom, the latter two relative to the elements and to the hull of the same source.
    energy_from
        Whose energies these are, one of `ENERGY_SOURCES`; those of two sources never meet.
    """

    energy_per_atom: float
    formation_energy_per_atom: float
    energy_above_hull: float
    energy_from: str


SCREEN_1, SCREEN_2 = "MTP of screen 1", "MTP of screen 2"
SINGLE_POINT, DFT_RELAXED = "DFT single point", "DFT, relaxed"
# Why a screen drops most structures.
TOO_FAR = "too far above the hull of its stage"
ENERGY_SOURCES = (SCREEN_1, SCREEN_2, SINGLE_POINT, DFT_RELAXED)


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


@dataclass(frozen=True)
class DFTDocument(Document):
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

    @classmethod
    def from_bson(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `to_bson`."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        values["geometry"] = Geometry.from_bson(values["geometry"])
        values["numbers"] = tuple(values["numbers"])
        values["corrections"] = tuple(values.get("corrections", ()))
        for name in ("forces", "stress"):
            if values.get(name) is not None:
                values[name] = unpack(values[name])
        return cls(**values)


@dataclass(frozen=True)
class ReferenceRelaxation(Document):
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

    @classmethod
    def from_bson(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `to_bson`."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        values["geometry"] = Geometry.from_bson(values["geometry"])
        values["numbers"] = tuple(values["numbers"])
        return cls(**values)
