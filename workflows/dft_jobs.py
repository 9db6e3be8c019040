"""Running DFT for a campaign so that nothing is paid for twice, what fails included."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import SERVER_AWAY
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.dft_queries import QUARANTINED
from hullscreen.database.documents import Geometry
from hullscreen.dft_adapters.engine import (
    CalculationError,
    DFTResult,
    Engine,
    fingerprint,
    remembering_evaluations,
)
from hullscreen.dft_adapters.structure_key import canonical_order, structure_key
from hullscreen.potentials.errors import CampaignError, DatabaseError, HullscreenError
from hullscreen.potentials.structures import FloatArray, IntArray
from hullscreen.workflows.holding import Held

if TYPE_CHECKING:
    from hullscreen.workflows.campaign import Campaign

# Names the run of `hullscreen run` or `launch` that a process belongs to.
RUN_VARIABLE = "HULLSCREEN_RUN"
MAX_ATTEMPTS = 3

SINGLE_POINT = "single_point"
RELAXATION = "relaxation"

Evaluated = tuple[float, FloatArray, FloatArray]


def atoms_of(
    cell: FloatArray, positions: FloatArray, species: IntArray, elements: Sequence[str]
) -> Atoms:
    """ASE's object of one structure."""
    return Atoms([elements[k] for k in species], positions=positions, cell=cell, pbc=True)


def relaxation_kind(force_tolerance: float, stress_tolerance: float) -> str:
    """What a relaxation to these tolerances (eV/Å, eV/Å³) computes, for its key."""
    return f"{RELAXATION}:{force_tolerance:.6g}:{stress_tolerance:.6g}"


def jobs_of(campaign: Campaign, purpose: str, repeat_before: datetime | None = None) -> DFTJobs:
    """DFT jobs of a campaign; ``repeat_before`` as in `DFTJobs`."""
    return DFTJobs(
        campaign.engine,
        campaign.store,
        purpose,
        campaign.directory,
        json.dumps(campaign.settings.dft.engine_table(), sort_keys=True),
        repeat_before,
        campaign.held,
    )


@dataclass
class DFTJobs:
    """An engine whose results are looked up in the database first and stored there.

    A failure is a result as well: it is not computed again with the same settings, unless somebody
    asks for it.

    Attributes
    ----------
    engine
        Computes what is not stored yet.
    store, purpose
        Where results go, and what they are for.
    directory
        Under which each calculation has a folder named by its key.
    settings
        All settings of the engine as text, those included that change no energies.
    repeat_before
        Failures up to this moment are computed again; None: none is.
    held
        The step that this process carries out; None outside steps.
    """

    engine: Engine
    store: CampaignStore
    purpose: str
    directory: Path
    settings: str = ""
    repeat_before: datetime | None = None
    held: Held | None = None
    _fingerprints: dict[frozenset[str], str] = field(default_factory=dict)

    def fingerprint(self, atoms: Atoms) -> str:
        """Hash of all that changes energies of structures of these elements."""
        elements = frozenset(atoms.symbols)
        if elements not in self._fingerprints:
            self._fingerprints[elements] = fingerprint(self.engine, sorted(elements))
        return self._fingerprints[elements]

    def key(self, atoms: Atoms, kind: str) -> str:
        """Key of a calculation: the structure, all that changes energies, and what is computed.

        ``kind`` is ``single_point``, or `relaxation_kind` with where a relaxation ends.
        """
        text = f"{kind}:{self.fingerprint(atoms)}:{structure_key(atoms)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def single_point(self, atoms: Atoms, structure_index: int) -> DFTDocument:
        """Energy, forces and stress; a stored result costs nothing.

        Raises
        ------
        CalculationError
            The engine failed, now or before; the failure is stored with its reason. Or the result
            is quarantined.
        """
        return self._stored_or_computed(
            SINGLE_POINT, atoms, structure_index, lambda f: self.engine.single_point(atoms, f)
        )

    def relax(
        self,
        atoms: Atoms,
        structure_index: int,
        *,
        force_tolerance: float,
        stress_tolerance: float,
        max_steps: int,
    ) -> DFTDocument:
        """Relaxed structure; each evaluation of an engine that works in this process is stored.

        Raises
        ------
        CalculationError
            The engine failed or did not converge, now or before; the failure is stored with its
            reason. Or the result is quarantined.
        """

        def relaxed(folder: Path) -> DFTResult:
            result = self.engine.relax(
                atoms,
                folder,
                force_tolerance=force_tolerance,
                stress_tolerance=stress_tolerance,
                max_steps=max_steps,
            )
            if not result.converged:
                raise CalculationError(
                    result.reason or "not_converged",
                    f"the relaxation of {atoms.get_chemical_formula()} did not converge "
                    f"({result.reason or 'no reason given'}) in {result.n_evaluations} "
                    "evaluations; raise max_steps under [dft] and rerun the job",
                    folder,
                    result.corrections,
                    result.cpu_seconds,
                )
            return result

        memory = _Memory(self, structure_index)
        kind = relaxation_kind(force_tolerance, stress_tolerance)
        with remembering_evaluations(self.engine, memory) as stores_evaluations:
            return self._stored_or_computed(
                kind,
                atoms,
                structure_index,
                relaxed,
                counted=not stores_evaluations,
                max_steps=max_steps,
            )

    def _stored_or_computed(
        self,
        kind: str,
        atoms: Atoms,
        structure_index: int,
        compute: Callable[[Path], DFTResult],
        *,
        counted: bool = True,
        max_steps: int = 1,
    ) -> DFTDocument:
        """The calculation's document; ``counted`` unless its evaluations are stored one by one."""
        key = self.key(atoms, kind)
        folder = self.directory / key[:2] / key
        limits = hashlib.sha256(f"{self.settings}:{max_steps}".encode()).hexdigest()
        stored = self._known(key, limits, folder)
        if stored is not None:
            return stored
        with self.held.computing(key) if self.held else nullcontext():
            # Another step, perhaps of another campaign, may have been quicker.
            return self._known(key, limits, folder) or self._computed(
                key, kind, atoms, structure_index, compute, folder, limits, counted=counted
            )

    def _known(self, key: str, limits: str, folder: Path) -> DFTDocument | None:
        """What was computed before; a failure is raised again."""
        stored = self.store.dft_result(key)
        if stored is None or stored.state == "done":
            return stored
        if stored.state == QUARANTINED or self._is_final(stored, limits):
            raise CalculationError(stored.state, stored.reason, folder, stored.corrections)
        return None

    def _computed(
        self,
        key: str,
        kind: str,
        atoms: Atoms,
        structure_index: int,
        compute: Callable[[Path], DFTResult],
        folder: Path,
        limits: str,
        *,
        counted: bool,
    ) -> DFTDocument:
        # Whoever took the step over may be about to compute it, too.
        self.store.require_claim()
        began = time.process_time()
        try:
            self._refuse_deadly(key, atoms, folder)
            result = compute(folder)
            return self._save(
                kind,
                atoms,
                structure_index,
                Geometry(result.cell, result.positions),
                energy=result.energy,
                forces=result.forces,
                stress=result.stress,
                converged=result.converged,
                n_evaluations=result.n_evaluations if counted else 0,
                cpu_seconds=result.cpu_seconds if counted else 0.0,
                corrections=result.corrections,
            )
        except CalculationError as error:
            geometry = Geometry(np.array(atoms.cell[:]), np.array(atoms.positions))
            spent = error.cpu_seconds or time.process_time() - began
            self._save(
                kind, atoms, structure_index, geometry,
                state="failed", reason=str(error), n_evaluations=int(counted),
                cpu_seconds=spent if counted else 0.0,
                corrections=error.corrections, limits=limits,
            )  # fmt: skip
            raise
        except (KeyboardInterrupt, HullscreenError, *SERVER_AWAY):
            # Asked to end, or the step was taken away: nothing is wrong with the structure.
            self._forget_attempt(key)
            raise

    def _is_final(self, failure: DFTDocument, limits: str) -> bool:
        """Whether computing it once more would fail once more, and nobody has asked for it."""
        asked = self.repeat_before is not None and failure.created_at <= self.repeat_before
        return failure.limits == limits and not asked

    def _refuse_deadly(self, key: str, atoms: Atoms, folder: Path) -> None:
        """Give up a calculation in which several processes of one run have ended.

        An engine that crashes takes its process along and leaves no word; without this, the same
        structure would end every worker that follows.
        """
        run = os.environ.get(RUN_VARIABLE)
        if run and self.store.count_attempt(key, run) > MAX_ATTEMPTS:
            raise CalculationError(
                "worker_ended",
                f"the worker process ended {MAX_ATTEMPTS} times while {self.engine.name} computed "
                f"{atoms.get_chemical_formula()}; see the logs of the workers",
                folder,
            )

    def _forget_attempt(self, key: str) -> None:
        """Let an attempt that did not end the process count for nothing."""
        run = os.environ.get(RUN_VARIABLE)
        if run:
            with suppress(*SERVER_AWAY, DatabaseError):
                self.store.forget_attempt(key, run)

    def _save(
        self, kind: str, atoms: Atoms, structure_index: int, geometry: Geometry, **result: Any
    ) -> DFTDocument:
        """Store a calculation of ``atoms``, all arrays in the canonical order of its atoms."""
        order = canonical_order(atoms)
        if result.get("forces") is not None:
            result["forces"] = result["forces"][order]
        document = DFTDocument(
            key=self.key(atoms, kind),
            kind=kind.partition(":")[0],
            campaign=self.store.name,
            purpose=self.purpose,
            structure_index=structure_index,
            chemsys="-".join(sorted(set(atoms.symbols))),
            engine=self.fingerprint(atoms),
            numbers=tuple(int(z) for z in atoms.numbers[order]),
            geometry=Geometry(geometry.cell, geometry.positions[order]),
            **{"state": "done", **result},
        )
        self.store.save_dft(document)
        return document


@dataclass
class _Memory:
    """Evaluations inside a relaxation: stored as single points, and recalled after a restart."""

    jobs: DFTJobs
    structure_index: int
    asked_s: float = 0.0

    def recall(self, atoms: Atoms) -> Evaluated | None:
        self.asked_s = time.process_time()
        stored = self.jobs.store.dft_result(self.jobs.key(atoms, SINGLE_POINT))
        if stored is None or stored.state != "done":
            self.jobs.store.require_claim()
            return None
        return stored_energy(stored), forces_for(atoms, stored), stored_array(stored.stress)

    def remember(self, atoms: Atoms, evaluated: Evaluated) -> None:
        energy, forces, stress = evaluated
        self.jobs._save(  # noqa: SLF001 - one thing in two classes
            SINGLE_POINT,
            atoms,
            self.structure_index,
            Geometry(np.array(atoms.cell[:]), np.array(atoms.positions)),
            energy=energy,
            forces=forces,
            stress=stress,
            converged=True,
            n_evaluations=1,
            cpu_seconds=time.process_time() - self.asked_s,
        )


def forces_for(atoms: Atoms, stored: DFTDocument) -> FloatArray:
    """Forces of a stored result in the order of ``atoms``, shape (n_atoms, 3)."""
    forces = np.empty((len(atoms), 3))
    forces[canonical_order(atoms)] = stored_array(stored.forces)
    return forces


def stored_energy(stored: DFTDocument) -> float:
    """Energy of a calculation that is done, eV.

    Raises
    ------
    CampaignError
        It has none.
    """
    if stored.energy is None:
        raise CampaignError(f"the DFT result {stored.key} is stored as done but has no energy")
    return stored.energy


def stored_array(array: FloatArray | None) -> FloatArray:
    """Forces or stress of a calculation that is done."""
    assert array is not None, "a calculation that is done has forces and stress"  # noqa: S101
    return array
