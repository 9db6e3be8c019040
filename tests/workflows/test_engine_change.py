"""Another DFT engine for a campaign: allowed before its first result, refused with both values."""

import dataclasses

import pytest

from hullscreen.potentials.errors import CampaignError
from hullscreen.workflows import decisions
from hullscreen.workflows.campaign import Campaign, add_prototypes, open_campaign, register
from hullscreen.workflows.dft_jobs import SINGLE_POINT, atoms_of, jobs_of
from hullscreen.workflows.engine_change import changed_settings


@pytest.fixture
def begun(make_campaign):
    """A campaign whose first structures are chosen, and none computed."""
    campaign = make_campaign()
    add_prototypes(campaign)
    decisions.first_round(campaign)
    return campaign


def given(campaign, **dft):
    """The same campaign with other settings of its engine."""
    settings = campaign.settings
    changed = dataclasses.replace(settings, dft=dataclasses.replace(settings.dft, **dft))
    return Campaign(changed, campaign.store, campaign.directory)


def keys_of(campaign):
    jobs = jobs_of(campaign, "seed")
    return [
        jobs.key(
            atoms_of(s.geometry.cell, s.geometry.positions, s.species, campaign.elements),
            SINGLE_POINT,
        )
        for s in campaign.store.selected()
    ]


def test_before_the_first_result_the_engine_may_change(begun, work_off_round):
    store, old = begun.store, begun.store.selected_keys()
    failed = jobs_of(begun, "seed")
    first = store.selected()[0]
    atoms = atoms_of(first.geometry.cell, first.geometry.positions, first.species, begun.elements)
    result = failed.single_point(atoms, first.structure_index)
    store.remove_dft(result)
    store.save_dft(dataclasses.replace(result, state="failed", reason="was refused its input"))
    other = given(begun, arguments={"asap_cutoff": True})
    register(other)
    assert store.selected_keys() == keys_of(other)
    assert not set(store.selected_keys()) & set(old)
    assert store.failed_dft() == []
    assert open_campaign(store).settings.dft.arguments == {"asap_cutoff": True}
    # A step finds its engine, its structures and the labels of these.
    open_campaign(store).require_same_engine()
    work_off_round(other, store.round(0))
    assert {r.state for r in store.dft_results(store.selected_keys()).values()} == {"done"}
    # Once more changes nothing.
    register(other)
    assert store.selected_keys() == keys_of(other)


def test_after_the_first_result_each_change_is_named(begun):
    first = begun.store.selected()[0]
    atoms = atoms_of(first.geometry.cell, first.geometry.positions, first.species, begun.elements)
    jobs_of(begun, "seed").single_point(atoms, first.structure_index)
    kept = begun.store.selected_keys()
    with pytest.raises(CampaignError, match=r"dft\.arguments\.asap_cutoff was not set, is True\)"):
        register(given(begun, arguments={"asap_cutoff": True}))
    with pytest.raises(CampaignError, match=r"dft\.force_tolerance was 0\.01, is 0\.02\)"):
        register(given(begun, force_tolerance=0.02))
    assert begun.store.selected_keys() == kept
    register(begun)


def test_other_settings_than_the_engines_may_not_change_either(begun):
    with pytest.raises(CampaignError, match=r"dft\.force_tolerance was 0\.01, is 0\.02\)"):
        register(given(begun, force_tolerance=0.02))


def test_settings_are_named_as_in_the_file():
    content = {
        "engine": "quantum_espresso",
        "kpoint_spacing": 0.1,
        "extra_input": {"system": {"nosym": True}},
        "files": {"Al": "hash"},
    }
    assert changed_settings(content, {**content, "kpoint_spacing": 0.05, "extra_input": {}}) == [
        "dft.quantum_espresso.extra_input.system.nosym was True, is not set",
        "dft.quantum_espresso.kpoint_spacing was 0.1, is 0.05",
    ]
    assert changed_settings(content, {**content, "files": {"Al": "other"}}) == [
        "the version of the engine or its pseudopotentials"
    ]
    assert changed_settings({"engine": "ase"}, content) == [
        "dft.engine was 'ase', is 'quantum_espresso'"
    ]
