"""Campaigns and structures as MongoDB keeps them: frozen dataclasses, arrays as BSON binary.

Fields carry the Materials Project's names where it has one. Energies in eV, lengths in Å.
"""

from __future__ import annotations

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
