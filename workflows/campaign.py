"""A campaign as its steps see it: settings, database, engine, and the arrays that they share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.documents import CampaignDocument, Geometry, Prototype, now
from hullscreen.database.round_documents import PotentialDocument
from hullscreen.database.schema import ensure_schema
from hullscreen.dft_adapters.engine import (
    Engine,
    EngineMissingError,
    description,
    fingerprint,
    load_engine,
)
from hullscreen.potentials.active_set import NOT_SET, ActiveSet
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.moment_tensor_potential import MomentTensorPotential
from hullscreen.potentials.mtp_files import parse_mtp
from hullscreen.potentials.structures import IndexArray
from hullscreen.workflows.holding import Held
from hullscreen.workflows.prototypes import PrototypeBatch, PrototypePool
from hullscreen.workflows.settings_tree import Settings

FINAL_STAGE = 3
HEARTBEAT_S = 10.0
# A random order spreads every wave over all compositions and lattices; the seed keeps it the same.
ORDER_STREAM = 1


@dataclass
class Accounted:
    """Processor time of this process that campaigns have been charged with.

    Attributes
    ----------
    seconds
        For parts of steps.
    between
        For finding, beginning and ending them.
    """

    seconds: float = 0.0
    between: float = 0.0


accounted = Accounted()


@dataclass(frozen=True)
class Campaign:
    """Everything a step needs.

    Attributes
    ----------
    settings
        As they were when the campaign began.
    store
        Its documents.
    directory
        Where DFT calculations write.
    heartbeat_s
        How often whoever holds a step gives a sign of life.
    held
        The step that this process carries out; None outside steps.
    """

    settings: Settings
    store: CampaignStore
    directory: Path
    heartbeat_s: float = HEARTBEAT_S
    held: Held | None = None

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols; species are indices into them."""
        return self.settings.campaign.elements

    @cached_property
    def engine(self) -> Engine:
        """The DFT engine."""
        return load_engine(self.settings.dft.engine_table())

    @cached_property
    def pool(self) -> PrototypePool:
        """The prototypes, enumerated on demand."""
        prototypes = self.settings.prototypes
        return PrototypePool(
            self.elements,
            lattices=prototypes.lattices,
            max_atoms=prototypes.max_atoms,
            aflow=prototypes.aflow,
            aflow_max_atoms=prototypes.aflow_max_atoms,
        )

    def is_same_engine(self, stored: Mapping[str, Any], elements: Sequence[str]) -> bool:
        """Whether another campaign's engine gives the energies that ours gives of its elements."""
        return bool(stored["fingerprint"] == fingerprint(self.engine, elements))

    def require_same_engine(self) -> None:
        """Refuse an engine whose energies are not those that the campaign began with.

        Raises
        ------
        EngineMissingError
            Another version of it, or other pseudopotentials, are installed where this process runs.
        """
        if not self.is_same_engine(self.store.campaign()["engine"], self.elements):
            raise EngineMissingError(
                "another_engine",
                f"{self.engine.name} gives other energies here than those that campaign "
                f"{self.store.name!r} began with (another version, or other pseudopotentials); let "
                "this worker find the same ones",
            )

    def level(self, stage: int) -> int:
        """Level of a stage's potential."""
        potential = self.settings.potential
        return potential.level_first if stage == 1 else potential.level_second

    @contextmanager
    def accounting(self, part: str) -> Iterator[None]:
        """Add the processor time of a block to a part of the campaign's costs."""
        start = time.process_time()
        try:
            yield
        finally:
            spent = time.process_time() - start
            accounted.seconds += spent
            self.store.add_cpu_seconds(part, spent)

    def potential(self, number: int) -> tuple[MomentTensorPotential, ActiveSet]:
        """A stored potential and its active set; errors are those of `potential_document`."""
        return read_potential(self.potential_document(number))

    def potential_document(self, number: int) -> PotentialDocument:
        """A stored potential.

        Raises
        ------
        CampaignError
            There is none of this number.
        """
        document = self.store.potential(number)
        if document is None:
            raise CampaignError(
                f"campaign {self.store.name} has no potential {number}; the fit of that round must "
                "run first"
            )
        return document


def read_potential(document: PotentialDocument) -> tuple[MomentTensorPotential, ActiveSet]:
    """The potential of a document, and its active set."""
    potential = parse_mtp(document.text, f"potential {document.number}")
    n = potential.parameters.size
    rows = np.frombuffer(document.active_rows, dtype="<f8").reshape(n, n).astype(np.float64)
    return potential, ActiveSet(
        rows, np.asarray(np.linalg.inv(rows), dtype=np.float64), np.full(n, NOT_SET)
    )


def register(campaign: Campaign) -> None:
    """Write the campaign's document if it is new, and check that it is the same one if not.

    Raises
    ------
    CampaignError
        The database holds a campaign of this name with other settings or, as soon as it has a DFT
        result, another DFT engine.
    DFTError
        The engine cannot compute these elements.
    """
    from hullscreen.workflows import engine_change  # it works on campaigns

    settings, store = campaign.settings, campaign.store
    # Checking an element may cost a calculation; that the engine is there is checked every time.
    campaign.engine.check(campaign.elements if store.find_campaign() is None else ())
    document = CampaignDocument(
        name=store.name,
        chemsys="-".join(sorted(campaign.elements)),
        elements=campaign.elements,
        settings=settings.stored_tables(),
        engine=description(campaign.engine, campaign.elements),
        directory=str(campaign.directory),
    )
    ensure_schema(store.connection)
    store.ensure_indexes()
    store.create(document)
    stored = store.campaign()
    ours, theirs = settings.deciding(), Settings(**stored["settings"]).deciding()
    changed = [
        f"{name} was {theirs.get(name)!r}, is {ours[name]!r}"
        for name in sorted(ours)
        if ours[name] != theirs.get(name)
    ]
    another = not campaign.is_same_engine(stored["engine"], campaign.elements)
    changeable = engine_change.may_change(campaign)
    if another and not changeable:
        changed += engine_change.changed_settings(
            stored["engine"]["content"], document.engine["content"]
        )
    if changed:
        raise CampaignError(
            f"campaign {store.name!r} began with other settings ({'; '.join(changed)}): results of "
            "both do not belong on one hull; restore them in hullscreen.toml, or choose another "
            "[campaign] name"
        )
    if changeable:
        # Also if it was done before and interrupted: as long as there is no result it may be.
        engine_change.follow(campaign)
    store.set_campaign(
        settings=document.settings,
        engine=document.engine,
        directory=document.directory,
        heartbeat_s=campaign.heartbeat_s,
    )


def open_campaign(store: CampaignStore) -> Campaign:
    """The campaign that the database holds.

    Where its directory cannot be seen, as on a node without the file system of the others, DFT
    writes below the working directory.

    Raises
    ------
    CampaignError
        There is none of this name.
    """
    document = store.campaign()
    directory = Path(document["directory"])
    return Campaign(
        Settings(**document["settings"]),
        store,
        directory if directory.parent.is_dir() else Path.cwd() / directory.name,
        document.get("heartbeat_s", HEARTBEAT_S),
    )


def add_prototypes(campaign: Campaign) -> dict[str, int]:
    """Write the pool into the database, a batch at a time, and say how many of each lattice."""
    pool = campaign.pool
    counts = pool.count()
    campaign.store.set_campaign(pool=counts)
    rng = np.random.default_rng([campaign.settings.campaign.seed, ORDER_STREAM])
    order = np.empty(counts["total"], dtype=np.int64)
    order[rng.permutation(counts["total"])] = np.arange(counts["total"])
    campaign.store.insert_prototypes(
        prototype
        for batch in pool.batches(2000)
        for prototype in _prototypes(campaign, batch, order)
    )
    return counts


def total_structures(campaign: Campaign) -> int:
    """Size of the pool."""
    return int(campaign.store.campaign()["pool"]["total"])


def _prototypes(
    campaign: Campaign, batch: PrototypeBatch, order: IndexArray
) -> Iterator[Prototype]:
    name, elements, structures = campaign.store.name, campaign.elements, batch.structures
    places = order[batch.first_index : batch.first_index + len(structures)].tolist()
    counts = structures.counts(len(elements)).tolist()
    moment = now()
    for i, prototype in enumerate(batch.prototypes):
        cell, positions, species = structures.one(i)
        atoms = tuple(counts[i])
        yield Prototype(
            campaign=name,
            index=batch.first_index + i,
            order=places[i],
            prototype=prototype,
            nsites=len(species),
            counts=atoms,
            formula_pretty=_reduced_formula(atoms, elements),
            **_system(atoms, elements),
            last_updated=moment,
            species=species,
            start=Geometry(cell, positions),
        )


def formula(counts: IndexArray, elements: tuple[str, ...]) -> str:
    """Reduced formula in the elements' order of electronegativity, as pymatgen writes it."""
    return _reduced_formula(tuple(map(int, counts)), elements)


@cache
def _reduced_formula(counts: tuple[int, ...], elements: tuple[str, ...]) -> str:
    """As `formula`; a pool has few compositions beside its structures."""
    return str(Composition(dict(zip(elements, counts, strict=True))).reduced_formula)


@cache
def _system(counts: tuple[int, ...], elements: tuple[str, ...]) -> dict[str, Any]:
    """Chemical system and composition under the Materials Project's names."""
    composition = {symbol: n for symbol, n in sorted(zip(elements, counts, strict=True)) if n}
    return {
        "chemsys": "-".join(composition),
        "elements": tuple(composition),
        "nelements": len(composition),
        "composition": composition,
    }
