"""The whole pool of a campaign relaxed with its reference engine: what brute force would have done.

Results are keyed by engine, start geometry and tolerances, so they are computed once for all
campaigns of a database, and an interrupted pool goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context

import numpy as np
from ase import Atoms

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_documents import ReferenceRelaxation
from hullscreen.dft_adapters.engine import fingerprint
from hullscreen.dft_adapters.runner import ONE_THREAD
from hullscreen.dft_adapters.structure_key import structure_key
from hullscreen.potentials.errors import DFTError
from hullscreen.potentials.fit import EV_PER_CUBIC_ANGSTROM_IN_GPA
from hullscreen.potentials.structures import Structures, concatenate, to_atoms
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.prototypes import PrototypeBatch
from hullscreen.workflows.reference_worker import (
    ReferenceTask,
    StartGeometry,
    begin_worker,
    relax_all,
)

STEP_LIMIT = "step_limit"
READ_TOGETHER = 2000
# Results are saved when so many have come, or so long after the last time: a kill costs seconds.
SAVED_TOGETHER = 100
SECONDS_BETWEEN_SAVES = 1.0
# Chunks of structures in the hands of the processes, per process: none waits for its next one.
CHUNKS_PER_PROCESS = 2
# Called with how many structures are done, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pool:
    """The prototypes of a campaign at their start geometries.

    Attributes
    ----------
    structures
        Member ``i`` has place ``i`` in the pool; species are indices into the campaign's elements.
    prototypes
        Their names.
    """

    structures: Structures
    prototypes: list[str]


@dataclass(frozen=True)
class RelaxedPool:
    """A pool and what the reference engine made of it.

    Attributes
    ----------
    relaxations
        One of each member, failures included; members with one start geometry share it.
    n_computed
        How many were computed by this call.
    """

    pool: Pool
    relaxations: list[ReferenceRelaxation]
    n_computed: int

    def different(self) -> list[ReferenceRelaxation]:
        """Each calculation once."""
        return list({relaxation.key: relaxation for relaxation in self.relaxations}.values())


def relax_pool(
    campaign: Campaign,
    n_processes: int,
    progress: Progress = lambda _done, _total: None,
    *,
    retry_failed: bool = False,
) -> RelaxedPool:
    """Relax every prototype of a campaign's pool that was not relaxed before.

    Parameters
    ----------
    n_processes
        How many relax side by side, each with an engine of its own and one thread.
    progress
        Called as results come.
    retry_failed
        Whether to relax again what failed before. A relaxation that ran out of steps is always
        relaxed again when there are more.

    Raises
    ------
    DFTError
        The engine cannot compute these elements, or a process was killed. What is done is kept.
    """
    campaign.engine.check(campaign.elements)
    campaign.store.ensure_indexes()
    pool = pool_of(campaign)
    task = reference_task(campaign)
    starts = start_geometries(pool, task, campaign.elements)
    stored = campaign.store.reference_relaxations([start.key for start in starts])
    done = {
        key: relaxation
        for key, relaxation in stored.items()
        if _settled(relaxation, task.max_steps, retry_failed=retry_failed)
    }
    missing = list({start.key: start for start in starts if start.key not in done}.values())
    # Cells come small ones first; in random order the time left is an honest guess.
    order = np.random.default_rng(0).permutation(len(missing))
    n_known, n_total = len(done), len(done) + len(missing)
    progress(n_known, n_total)
    chunk_size = campaign.settings.dft.structures_at_once
    computed = compute(task, [missing[i] for i in order], n_processes, chunk_size)
    with _saving(campaign.store) as keep, closing(computed):
        for results in computed:
            keep(results)
            done |= {relaxation.key: relaxation for relaxation in results}
            progress(len(done), n_total)
    return RelaxedPool(pool, [done[start.key] for start in starts], n_total - n_known)


def pool_of(campaign: Campaign) -> Pool:
    """The campaign's prototypes: those in its database, or enumerated if it has not begun."""
    batches = list(_stored_batches(campaign) or campaign.pool.batches(READ_TOGETHER))
    return Pool(
        concatenate(batch.structures for batch in batches),
        [name for batch in batches for name in batch.prototypes],
    )


def _stored_batches(campaign: Campaign) -> list[PrototypeBatch]:
    document = campaign.store.find_campaign()
    total = document["pool"].get("total", 0) if document else 0
    batches = []
    for first in range(0, total, READ_TOGETHER):
        query = {"index": {"$gte": first, "$lt": first + READ_TOGETHER}}
        found = campaign.store.structures(query, geometry="start")
        names = [entry["prototype"] for entry in campaign.store.documents(query, ["prototype"])]
        batches.append(PrototypeBatch(found.structures, names, first))
    return batches


def reference_task(campaign: Campaign) -> ReferenceTask:
    """The relaxations of a campaign's final stage, for structures that it never asked for."""
    settings = campaign.settings.dft
    return ReferenceTask(
        engine_table=json.dumps(settings.engine_table()),
        fingerprint=fingerprint(campaign.engine, campaign.elements),
        force_tolerance=settings.force_tolerance,
        stress_tolerance=settings.stress_tolerance_gpa / EV_PER_CUBIC_ANGSTROM_IN_GPA,
        max_steps=settings.max_steps,
        directory=campaign.directory / "brute_force",
    )


def start_geometries(
    pool: Pool, task: ReferenceTask, elements: Sequence[str]
) -> list[StartGeometry]:
    """What is to be relaxed, one for each member of the pool."""
    return [
        StartGeometry(
            reference_key(atoms, task),
            tuple(int(z) for z in atoms.numbers),
            np.array(atoms.cell[:]),
            np.array(atoms.positions),
        )
        for atoms in to_atoms(pool.structures, elements)
    ]


def reference_key(atoms: Atoms, task: ReferenceTask) -> str:
    """Key of a relaxation: the engine, the start geometry and the tolerances."""
    tolerances = f"{task.force_tolerance!r}:{task.stress_tolerance!r}"
    text = f"reference:{task.fingerprint}:{structure_key(atoms)}:{tolerances}"
    return hashlib.sha256(text.encode()).hexdigest()


def _settled(relaxation: ReferenceRelaxation, max_steps: int, *, retry_failed: bool) -> bool:
    """Whether a stored relaxation is what computing it now would give."""
    if relaxation.state == "done":
        return True
    out_of_steps = relaxation.reason == STEP_LIMIT and relaxation.max_steps < max_steps
    return not (retry_failed or out_of_steps)


def compute(
    task: ReferenceTask, starts: Sequence[StartGeometry], n_processes: int, chunk_size: int
) -> Generator[list[ReferenceRelaxation], None, None]:
    """Relaxations in the order in which they end, a chunk at a time.

    Raises
    ------
    DFTError
        The engine cannot serve, or a process was killed.
    """
    chunks = [starts[i : i + chunk_size] for i in range(0, len(starts), chunk_size)]
    if not chunks:
        return
    chunks.reverse()
    pending: set[Future[list[ReferenceRelaxation]]] = set()
    with _worker_pool(min(n_processes, len(chunks))) as submit:
        try:
            while chunks or pending:
                while chunks and len(pending) < CHUNKS_PER_PROCESS * n_processes:
                    pending.add(submit(task, chunks.pop()))
                ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        except BrokenProcessPool as error:
            raise DFTError(
                "a process that relaxed structures was killed, perhaps because memory ran out; "
                "what is done is kept: run again, with fewer workers if memory is short"
            ) from error


Submit = Callable[[ReferenceTask, Sequence[StartGeometry]], "Future[list[ReferenceRelaxation]]"]


@contextmanager
def _worker_pool(n_processes: int) -> Iterator[Submit]:
    """Processes that relax chunks; on an error or Ctrl-C they are ended at once."""
    others = set(active_children())
    executor = ProcessPoolExecutor(
        n_processes,
        mp_context=get_context("spawn"),
        initializer=begin_worker,
        initargs=(os.getpid(),),
    )

    def submit(
        task: ReferenceTask, starts: Sequence[StartGeometry]
    ) -> Future[list[ReferenceRelaxation]]:
        # Submitting may start a process, which lets SIGINT in only when it is ready for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return executor.submit(relax_all, task, starts)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    finished = False
    with _environment(ONE_THREAD):
        try:
            yield submit
            finished = True
        finally:
            if not finished:
                for process in set(active_children()) - others:
                    process.terminate()
            executor.shutdown(cancel_futures=True)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while: a new process reads them as it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass
class _Saver:
    """Writes results in groups."""

    store: CampaignStore
    waiting: list[ReferenceRelaxation] = field(default_factory=list)
    saved_at_s: float = field(default_factory=time.monotonic)

    def keep(self, results: Sequence[ReferenceRelaxation]) -> None:
        self.waiting += results
        late = time.monotonic() - self.saved_at_s > SECONDS_BETWEEN_SAVES
        if late or len(self.waiting) >= SAVED_TOGETHER:
            self.save()

    def save(self) -> None:
        self.store.save_reference_relaxations(self.waiting)
        self.waiting, self.saved_at_s = [], time.monotonic()


@contextmanager
def _saving(store: CampaignStore) -> Iterator[Callable[[Sequence[ReferenceRelaxation]], None]]:
    """Function that takes results to be stored; all are stored at the end, also after Ctrl-C."""
    saver = _Saver(store)
    try:
        yield saver.keep
    finally:
        saver.save()
