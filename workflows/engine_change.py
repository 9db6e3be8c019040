"""What differs between the DFT engine that a campaign began with and the one it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.dft_jobs import SINGLE_POINT, atoms_of, jobs_of

OTHERWISE = "the version of the engine or its pseudopotentials"
# Keys of an engine's content that have another name in ``hullscreen.toml``.
NAMES = {"incar": "extra_incar"}
# What the settings alone do not give: hashes of files, versions, tables of pymatgen.
NO_SETTINGS = ("files", "version", "potcars", "input_set_incar", "same_for_all")


def changed_settings(began: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Phrases that name each setting of the engine that differs, with both values.

    Parameters
    ----------
    began, given
        Contents of two engines, as `hullscreen.dft_adapters.engine.description` has them.
    """
    if began["engine"] != given["engine"]:
        return [f"dft.engine was {began['engine']!r}, is {given['engine']!r}"]
    table = "dft" if given["engine"] == "ase" else f"dft.{given['engine']}"
    before, now = dict(_settings(began, table)), dict(_settings(given, table))
    changed = [
        f"{key} {_shown('was', before, key)}, {_shown('is', now, key)}"
        for key in sorted(before | now)
        if before.get(key) != now.get(key)
    ]
    return changed or [OTHERWISE]


def _shown(verb: str, values: Mapping[str, Any], key: str) -> str:
    return f"{verb} {values[key]!r}" if key in values else f"{verb} not set"


def _settings(content: Mapping[str, Any], table: str) -> Iterator[tuple[str, Any]]:
    """Full name and value of each setting, tables in tables included."""
    for key, value in content.items():
        if key in NO_SETTINGS:
            continue
        name = f"{table}.{NAMES.get(key, key)}"
        if isinstance(value, Mapping):
            yield from _settings(value, name)
        else:
            yield name, value


def may_change(campaign: Campaign) -> bool:
    """Whether no DFT result has come of the campaign yet, so that its engine can be another one.

    Only its first structures are chosen then, which do not depend on the engine.
    """
    store = campaign.store
    last = store.last_round()
    if last is not None and last.number > 0:
        return False
    results = store.dft_results(store.selected_keys()).values()
    return all(result.state == "failed" for result in results)


def follow(campaign: Campaign) -> None:
    """Let the structures chosen first point at results of the campaign's engine of now.

    Failures of the engine before are forgotten. Done again after an interruption it does the same.
    """
    jobs, store = jobs_of(campaign, "seed"), campaign.store
    stale, keys = [], {}
    for one in store.selected():
        atoms = atoms_of(one.geometry.cell, one.geometry.positions, one.species, campaign.elements)
        key = jobs.key(atoms, SINGLE_POINT)
        if key != one.key:
            stale.append(one.key)
            keys[one.round, one.number] = key
    own = {failure.key: failure for failure in store.failed_dft()}
    for key in stale:
        if key in own:
            store.remove_dft(own[key])
    store.set_selected_keys(keys)
