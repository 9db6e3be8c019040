"""The hull of a campaign: which structures are stable, by energies of DFT relaxations alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.dft_queries import QUARANTINED
from hullscreen.potentials.errors import CampaignError
from hullscreen.potentials.structures import FloatArray
from hullscreen.workflows.dft_jobs import SINGLE_POINT, stored_energy
from hullscreen.workflows.hull import Hull, convex_hull
from hullscreen.workflows.hull_entries import Entry
from hullscreen.workflows.rounds import UNCONVERGED
from hullscreen.workflows.same_basin import same_crystal
from hullscreen.workflows.screening import TIE

# Screened structures further above the hull than so many of its depths, and than so many eV/atom,
# are outside a picture.
SHOWN_DEPTHS = 1.6
SHOWN_AT_LEAST = 0.1


@dataclass(frozen=True)
class HullResult:
    """The hull of what DFT has relaxed so far.

    Attributes
    ----------
    campaign, chemsys, elements, engine
        Name, system, elements in the order of ``counts``, and the name of the DFT engine.
    finished
        Whether the campaign is; before, the hull is provisional.
    n_pending
        Structures that are chosen for DFT relaxation and still wait for it.
    failed
        Those that DFT could not relax: ``structure_index``, ``formula_pretty``, ``prototype``,
        ``reason``.
    n_labels_failed
        DFT single points that failed: their structures were not learnt.
    n_labels_quarantined
        DFT single points that cannot be right and were put aside.
    n_unconverged
        Structures left out because the potential could not relax them.
    entries
        Stable ones first, then by their energy above the hull.
    hull
        Over ``entries``, in their order.
    """

    campaign: str
    chemsys: str
    elements: tuple[str, ...]
    engine: str
    finished: bool
    n_pending: int
    failed: tuple[dict[str, Any], ...]
    n_labels_failed: int
    n_labels_quarantined: int
    n_unconverged: int
    entries: tuple[Entry, ...]
    hull: Hull

    @cached_property
    def stable(self) -> list[Entry]:
        """One entry of each stable composition, the lowest; in order of composition."""
        lowest: dict[str, Entry] = {}
        for entry in self.entries:
            known = lowest.get(entry.formula_pretty)
            if entry.is_stable and (known is None or entry.energy_per_atom < known.energy_per_atom):
                lowest[entry.formula_pretty] = entry
        return sorted(lowest.values(), key=lambda entry: [-n / entry.nsites for n in entry.counts])

    @cached_property
    def ties(self) -> list[Entry]:
        """The other entries within 0.5 meV/atom of the hull: DFT hardly tells them apart."""
        stable = {entry.structure_index for entry in self.stable}
        return [
            entry
            for entry in self.entries
            if entry.energy_above_hull <= TIE and entry.structure_index not in stable
        ]

    @cached_property
    def unstable(self) -> list[Entry]:
        """The other entries, the nearest to the hull first."""
        return [entry for entry in self.entries if entry.energy_above_hull > TIE]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {entry.structure_index: place for place, entry in enumerate(self.entries)}

    def tied_with(self, entry: Entry) -> Entry | None:
        """The stable entry of the same composition, if there is one."""
        same = (other for other in self.stable if other.formula_pretty == entry.formula_pretty)
        return next(same, None)

    def is_same_crystal(self, entry: Entry, other: Entry) -> bool:
        """Whether two entries are one crystal, reached from two prototypes."""
        a, b = entry.result, other.result
        return same_crystal(
            a.geometry.cell,
            a.geometry.positions,
            np.array(a.numbers, dtype=np.int32),
            b.geometry.cell,
            b.geometry.positions,
            np.array(b.numbers, dtype=np.int32),
        )

    def products(self, entry: Entry) -> list[tuple[Entry, float]]:
        """Stable entries that an unstable one decomposes to, with their shares of the atoms."""
        shares = self.hull.decomposition(self._places[entry.structure_index])
        return [(self.entries[i], share) for i, share in shares.items()]

    def decomposition(self, entry: Entry) -> list[dict[str, Any]]:
        """As `products`, as plain JSON."""
        return [
            {
                "structure_index": product.structure_index,
                "formula": product.formula_pretty,
                "amount": share,
            }
            for product, share in self.products(entry)
        ]

    def document(self, entry: Entry) -> dict[str, Any]:
        """Everything about an entry as plain JSON, under the Materials Project's names."""
        symbols = [symbol for symbol, n in zip(self.elements, entry.counts, strict=True) if n]
        return {
            "structure_index": entry.structure_index,
            "prototype": entry.prototype,
            "formula_pretty": entry.formula_pretty,
            "chemsys": "-".join(sorted(symbols)),
            "composition": {
                symbol: n for symbol, n in zip(self.elements, entry.counts, strict=True) if n
            },
            "nsites": entry.nsites,
            "nelements": len(symbols),
            "energy_per_atom": entry.energy_per_atom,
            "formation_energy_per_atom": entry.formation_energy_per_atom,
            "energy_above_hull": entry.energy_above_hull,
            "is_stable": entry.is_stable,
            "decomposes_to": None if entry.is_stable else self.decomposition(entry),
            "volume": entry.volume,
            "density": entry.density,
            "symmetry": entry.symmetry,
            "structure": {
                "cell": entry.result.geometry.cell.tolist(),
                "species": entry.symbols,
                "positions": entry.result.geometry.positions.tolist(),
            },
            "dft_key": entry.result.key,
            "last_updated": entry.result.created_at.isoformat(),
        }

    def to_dict(self, *, everything: bool = False) -> dict[str, Any]:
        """The hull as one JSON document; ``unstable`` is in it if everything is wanted."""
        document: dict[str, Any] = {
            "campaign": self.campaign,
            "chemsys": self.chemsys,
            "elements": list(self.elements),
            "dft_engine": self.engine,
            "finished": self.finished,
            "n_dft_relaxed": len(self.entries),
            "n_pending": self.n_pending,
            "failed": list(self.failed),
            "n_labels_failed": self.n_labels_failed,
            "n_labels_quarantined": self.n_labels_quarantined,
            "n_unconverged": self.n_unconverged,
            "tie_ev_per_atom": TIE,
            "stable": [self.document(entry) for entry in self.stable],
            "ties": [self.document(entry) | self._tie(entry) for entry in self.ties],
        }
        if everything:
            document["unstable"] = [self.document(entry) for entry in self.unstable]
        return document

    def _tie(self, entry: Entry) -> dict[str, Any]:
        stable = self.tied_with(entry)
        return {
            "tied_with": stable.structure_index if stable else None,
            "same_crystal": stable is not None and self.is_same_crystal(entry, stable),
        }


def final_hull(store: CampaignStore) -> HullResult:
    """Hull of the structures that DFT has relaxed, also while the campaign goes on.

    Raises
    ------
    CampaignError
        The campaign has not begun, or DFT has relaxed no structure of some pure element so far.
    """
    campaign = store.campaign()
    elements = tuple(campaign["elements"])
    found = store.search(
        {"stage": 3, "final": {"$exists": True}},
        ["index", "prototype", "formula_pretty", "counts", "final"],
        sort=["index"],
    )
    done = [document for document in found if document["final"]["state"] == "done"]
    failed = [document for document in found if document["final"]["state"] != "done"]
    last = store.last_round()
    wanted = len(last.final_indices) if last is not None and last.purpose == "final" else 0
    n_pending = max(wanted - len(found), 0)
    results = store.dft_results([document["final"]["key"] for document in done])
    missing = [document["index"] for document in done if document["final"]["key"] not in results]
    if missing:
        raise CampaignError(
            f"the DFT results of {len(missing)} structures, the first number {missing[0]}, are no "
            "longer in the database; run again if `hullscreen labels` was to recompute them, "
            "else restore its collection dft_results"
        )
    done, aside = _judged(done, results)
    failed = sorted([*failed, *aside], key=lambda document: int(document["index"]))
    _require_elements(store.name, elements, done, failed, n_pending)
    entries, hull = _entries(done, results)
    return HullResult(
        campaign=store.name,
        chemsys=campaign["chemsys"],
        elements=elements,
        engine=campaign["engine"]["name"],
        finished=campaign["finished"],
        n_pending=n_pending,
        failed=tuple(
            {
                "structure_index": document["index"],
                "formula_pretty": document["formula_pretty"],
                "prototype": document["prototype"],
                "reason": document["final"].get("reason", "none is recorded"),
            }
            for document in failed
        ),
        n_labels_failed=sum(r.kind == SINGLE_POINT for r in store.failed_dft()),
        n_labels_quarantined=len(store.quarantined_dft(store.selected_keys())),
        n_unconverged=store.count(
            # With the stages, so that the index of reasons leads to these.
            **{"dropped.stage": {"$in": [1, 2]}, "dropped.reason": UNCONVERGED}
        ),
        entries=entries,
        hull=hull,
    )


def screened_background(store: CampaignStore, result: HullResult) -> tuple[FloatArray, FloatArray]:
    """Compositions and formation energies of structures that screening dropped, for pictures.

    Returns
    -------
    Fractions (n, n_elements) and energies (n,) in eV/atom: the hull's, and on top the height above
    the hull at which the structure was dropped, so that errors of a potential's elements cancel.
    What lies far above the hull is left out.
    """
    depth = -float(result.hull.formation_energies.min(initial=0.0))
    highest = max(SHOWN_DEPTHS * depth, SHOWN_AT_LEAST)
    found = store.search(
        {"energy_above_hull": {"$gte": 0.0, "$lte": highest}, "dropped": {"$exists": True}},
        ["counts", "energy_above_hull"],
        sort=["energy_above_hull"],
    )
    if not found:
        return np.zeros((0, len(result.elements))), np.zeros(0)
    fractions = _fractions([document["counts"] for document in found])
    heights = np.array([document["energy_above_hull"] for document in found])
    return fractions, result.hull.hull_energy_at(fractions) + heights


def _entries(
    done: Sequence[dict[str, Any]], results: dict[str, DFTDocument]
) -> tuple[tuple[Entry, ...], Hull]:
    keyed = [results[document["final"]["key"]] for document in done]
    fractions = _fractions([document["counts"] for document in done])
    energies = np.array([stored_energy(result) / len(result.numbers) for result in keyed])
    above = convex_hull(fractions, energies).energies_above_hull
    order = np.argsort(above, kind="stable")
    hull = convex_hull(fractions[order], energies[order])
    entries = tuple(
        Entry(
            structure_index=done[i]["index"],
            prototype=done[i]["prototype"],
            formula_pretty=done[i]["formula_pretty"],
            counts=tuple(done[i]["counts"]),
            formation_energy_per_atom=float(hull.formation_energies[place]),
            energy_above_hull=float(hull.energies_above_hull[place]),
            is_stable=bool(hull.stable[place]),
            result=keyed[i],
        )
        for place, i in enumerate(order)
    )
    return entries, hull


def _judged(
    done: Sequence[dict[str, Any]], results: dict[str, DFTDocument]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What counts, and what another campaign has quarantined since, with the reason."""
    counts, aside = [], []
    for document in done:
        result = results[document["final"]["key"]]
        if result.state == QUARANTINED:
            reason = f"quarantined: {result.reason}"
            aside.append({**document, "final": {**document["final"], "reason": reason}})
        else:
            counts.append(document)
    return counts, aside


def _require_elements(
    name: str,
    elements: tuple[str, ...],
    done: Sequence[dict[str, Any]],
    failed: Sequence[dict[str, Any]],
    n_pending: int,
) -> None:
    pure = {k for d in done for k, n in enumerate(d["counts"]) if n == sum(d["counts"])}
    missing = [element for k, element in enumerate(elements) if k not in pure]
    if not missing:
        return
    reasons = [d["final"]["reason"] for d in failed if d["formula_pretty"] in missing]
    if reasons:
        why = f"it failed: {reasons[0]}"
    elif n_pending:
        why = f"{n_pending} DFT relaxations are still to come; see `hullscreen status`"
    else:
        why = "it is still screening; see `hullscreen status`"
    raise CampaignError(
        f"campaign {name!r} has no hull yet, for no structure of pure {' or '.join(missing)} is "
        f"relaxed with DFT: {why}"
    )


def _fractions(counts: Sequence[Sequence[int]]) -> FloatArray:
    atoms = np.array(counts, dtype=np.float64)
    fractions: FloatArray = atoms / atoms.sum(axis=1, keepdims=True)
    return fractions
