"""What must hold of a campaign, whatever happened to it on its way."""

import json
from collections import defaultdict

from ase import Atoms

from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.dft_adapters.structure_key import structure_key
from hullscreen.workflows.results import final_hull

# Fits are sums whose order depends on nothing; two machines' libraries might round differently.
SAME_ENERGY_EV_PER_ATOM = 1e-9


def read_log(path):
    """Lines of an event log; one that was cut short by the end of its process is left out."""
    events = []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def history(store):
    """What a campaign decided and learnt: the same for every undisturbed run of the same seed."""
    keys = defaultdict(list)
    for selected in store.selected():
        keys[selected.round].append(selected.key)
    rounds = [
        (r.number, r.stage, r.purpose, r.fits, r.wave, r.final_indices, tuple(keys[r.number]))
        for r in store.rounds()
    ]
    potentials = [
        (potential["number"], potential["n_training"])
        for potential in store.potentials(["number", "n_training"])
    ]
    return rounds, potentials


def hull_of(store):
    """Stable formulas and their energies, eV/atom."""
    hull = final_hull(store)
    return {
        entry.formula_pretty: entry.energy_per_atom for entry in hull.entries if entry.is_stable
    }


def broken(database, campaign, events, undisturbed):
    """Sentences about what does not hold; none if all does.

    Parameters
    ----------
    database
        With the finished campaign.
    events
        Its processes' log.
    undisturbed
        `hull_of` and `history` of a run that nothing happened to.
    """
    store = CampaignStore(
        Connection(database=database, uri="", name=database.name, embedded=False), campaign
    )
    hull, (rounds, potentials) = undisturbed
    return [
        *_hull(hull_of(store), hull),
        *_history(history(store), rounds, potentials),
        *_dft(database, campaign, events),
        *_claims(events),
        *_structures(database, campaign),
    ]


def _hull(found, expected):
    if found.keys() != expected.keys():
        yield f"the hull has {sorted(found)} instead of {sorted(expected)}"
    for formula in found.keys() & expected.keys():
        if abs(found[formula] - expected[formula]) > SAME_ENERGY_EV_PER_ATOM:
            yield f"{formula} has {found[formula]} eV/atom instead of {expected[formula]}"


def _history(found, rounds, potentials):
    """No training row is lost or doubled: each round asks for the same, each fit learns as much."""
    for ours, theirs in zip(*(map(list, (found[0], rounds))), strict=False):
        if ours != theirs:
            yield f"round {ours[0]} is {ours[1:6]} instead of {theirs[1:6]}, or asks for others"
            break
    if len(found[0]) != len(rounds):
        yield f"there are {len(found[0])} rounds instead of {len(rounds)}"
    if found[1] != potentials:
        yield f"the fits learnt {found[1]} labels instead of {potentials}"


def _dft(database, campaign, events):
    """What was acknowledged is there, and nothing is evaluated again once it is."""
    documents = [DFTDocument.from_bson(_plain(d)) for d in database.dft_results.find()]
    present = {document.key: document for document in documents}
    stored = {}
    for event in events:
        if event["what"] == "stored":
            stored.setdefault(event["key"], event["time"])
    for key in stored.keys() - present.keys():
        yield f"the acknowledged DFT result {key} is not there"
    known_since = {
        _structure(present[key]): moment
        for key, moment in stored.items()
        if key in present and present[key].kind == "single_point"
    }
    for event in events:
        if event["what"] == "evaluated":
            since = known_since.get(event["structure"])
            if since is not None and event["time"] > since:
                yield (
                    f"{event['structure']} was evaluated {event['time'] - since:.3f} s after its "
                    "result was stored"
                )
    for asked in database.selected.find({"campaign": campaign}):
        if asked["key"] not in present:
            yield f"structure {asked['structure_index']} was asked for and has no result"


def _plain(document):
    return {name: value for name, value in document.items() if name != "_id"}


def _structure(document):
    geometry = document.geometry
    return structure_key(
        Atoms(document.numbers, positions=geometry.positions, cell=geometry.cell, pbc=True)
    )


def _claims(events):
    """Nobody was given a claim that somebody else was given as well."""
    tokens = defaultdict(list)
    for event in events:
        if event["what"] == "taken":
            tokens[event["fw_id"]].append(event["token"])
    for fw_id, taken in tokens.items():
        if len(set(taken)) != len(taken):
            yield f"Firework {fw_id} was held twice with one token: {taken}"


def _structures(database, campaign):
    """Every structure has come to an end: dropped with a reason, or relaxed with DFT."""
    query = {"campaign": campaign, "dropped": {"$exists": False}, "final": {"$exists": False}}
    stuck = database.structures.count_documents(query)
    if stuck:
        yield f"{stuck} structures are stuck"
    unfinished = database.fireworks.count_documents(
        {"spec.campaign": campaign, "state": {"$nin": ["COMPLETED"]}}
    )
    if unfinished:
        yield f"{unfinished} Fireworks are not completed"
