"""What the campaign has learnt: its potentials as MLIP's ``.mtp``, and the labels behind them."""

from __future__ import annotations

from pathlib import Path

from hullscreen.database.round_documents import PotentialDocument
from hullscreen.launch.exports.contents import Contents, one_line
from hullscreen.launch.exports.labelled_cells import with_provenance, write_cells
from hullscreen.potentials.cfg_files import Configuration
from hullscreen.potentials.errors import CampaignError, InputError
from hullscreen.workflows.campaign import open_campaign
from hullscreen.workflows.labelled import labelled_structures, training_set_of


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

    Those that failed or are quarantined are not among them. The suffix tells the format.

    Raises
    ------
    CampaignError
        No potential is fitted yet.
    InputError
        There is none of this stage or round.
    OSError
        The file cannot be written.
    """
    potential = _chosen(contents)[-1]
    campaign = open_campaign(contents.store)
    labels = labelled_structures(campaign, round={"$lte": potential.number})
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
