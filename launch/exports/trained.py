"""What the campaign has learnt: its potentials as MLIP's ``.mtp``, and the labels behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hullscreen.database.dft_queries import QUARANTINED
from hullscreen.database.round_documents import PotentialDocument
from hullscreen.launch.exports.contents import Contents, one_line
from hullscreen.launch.exports.labelled_cells import with_provenance, write_cells
from hullscreen.potentials.cfg_files import Configuration
from hullscreen.potentials.errors import CampaignError, InputError
from hullscreen.workflows.campaign import open_campaign
from hullscreen.workflows.labelled import learnt_labels, training_set_of


def potential_files(contents: Contents) -> dict[str, str]:
    """The text of each potential that is asked for, the newest of each stage by default.

    Raises
    ------
    CampaignError
        None is fitted yet.
    InputError
        There is none of this stage or round.
    """
    return {
        f"{contents.provenance['campaign']}-screen-{one.stage}-round-{one.number}.mtp": one.text
        for one in _chosen(contents)
    }


def write_training_set(contents: Contents, path: Path) -> None:
    """Write the labels that the potential asked for was fitted to, the newest one by default.

    Those that were put aside since are among them. The provenance says how many there are, and
    whether some are stored no longer; so is said where the user reads it. The suffix tells the
    format.

    Raises
    ------
    CampaignError
        No potential is fitted yet, or no label of some element is left.
    InputError
        There is none of this stage or round.
    OSError
        The file cannot be written.
    """
    potential = _chosen(contents)[-1]
    campaign = open_campaign(contents.store)
    labels = learnt_labels(campaign, potential)
    remark = _what_differs(potential, len(labels))
    known: dict[str, Any] = {
        "potential": potential.number,
        "n_fitted": potential.n_training,
        "n_written": len(labels),
        "n_put_aside_since": sum(result.state == QUARANTINED for _, result in labels),
    }
    if remark:
        known["remark"] = remark
        click.echo(remark, err=True)
    contents = replace(contents, provenance={**contents.provenance, "training_set": known})
    training = training_set_of(campaign, labels)
    structures, offsets = training.structures, training.structures.offsets
    cells = [
        Configuration(
            *structures.one(i),
            energy=float(training.energies[i]),
            forces=training.forces[offsets[i] : offsets[i + 1]],
            plus_stress=-structures.volumes[i] * training.stresses[i],
            features={
                "structure_index": [str(selected.structure_index)],
                "purpose": [one_line(selected.purpose)],
                "round": [str(selected.round)],
                "dft_key": [result.key],
                "campaign": [one_line(contents.provenance["campaign"])],
            },
        )
        for i, (selected, result) in enumerate(labels)
    ]
    write_cells(path, with_provenance(cells, contents), campaign.elements)


def _what_differs(potential: PotentialDocument, n_labels: int) -> str:
    """In what the labels differ from those that a potential was fitted to; empty if in nothing."""
    name = f"potential {potential.number}"
    if not potential.labels:
        return (
            f"An earlier version has fitted {name} and did not keep to which "
            f"{potential.n_training} labels: these are the {n_labels} that count now."
        )
    lacking = potential.n_training - n_labels
    if not lacking:
        return ""
    return (
        f"{lacking} of the {potential.n_training} labels that {name} was fitted to are not stored "
        "as they were (`hullscreen labels --recompute` removes one): these are the others."
    )


def _chosen(contents: Contents) -> list[PotentialDocument]:
    """Potentials that are asked for, in the order of their rounds."""
    store, wanted = contents.store, contents.wanted
    known = store.potentials(["number", "stage"])
    if not known:
        raise CampaignError(
            f"campaign {store.name!r} has fitted no potential yet; see `hullscreen status`"
        )
    if wanted.potential is None:
        newest = {one["stage"]: one["number"] for one in known}
        numbers = sorted(n for s, n in newest.items() if wanted.stage in (None, s))
    else:
        numbers = [
            one["number"]
            for one in known
            if one["number"] == wanted.potential and wanted.stage in (None, one["stage"])
        ]
    found = [document for n in numbers if (document := store.potential(n)) is not None]
    if not found:
        listed = ", ".join(f"{one['number']} (screen {one['stage']})" for one in known)
        raise InputError(f"campaign {store.name!r} has no such potential; by round it has {listed}")
    return found
