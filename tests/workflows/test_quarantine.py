"""Campaigns whose DFT engine lies now and then end with the hull of one that does not."""

import contextlib
import dataclasses
import itertools

import numpy as np
import pytest
from ase.calculators.emt import EMT

from hullscreen.database.publications import BEGAN_AT, CHANGES, PUBLICATION, PUBLISHED
from hullscreen.dft_adapters.ase_engine import ASEEngine
from hullscreen.dft_adapters.structure_key import structure_key
from hullscreen.potentials.errors import CampaignError, DFTError
from hullscreen.workflows import decisions, dft_steps, potential_steps, quarantine
from hullscreen.workflows.campaign import add_prototypes
from hullscreen.workflows.campaign_status import campaign_status
from hullscreen.workflows.labelled import labelled_structures
from hullscreen.workflows.report import campaign_report
from hullscreen.workflows.results import final_hull
from hullscreen.workflows.screening import TIE

EVERYTHING = (0, 10**9)
SETTINGS = {
    "prototypes": {"max_atoms": 4, "lattices": ["fcc", "bcc"]},
    "potential": {"level_first": 6, "level_second": 8, "cutoff_angstrom": 5.0},
    "learning": {"first_wave": 30},
    "screening": {"validation_structures": 10, "sigma_multiple": 4.0},
}
# What differs between two runs of one step.
OURS = ("campaigns", "structures", "selected", "rounds", "potentials", "dft_results")
OF_THE_MOMENT = (
    *("_id", "created_at", "last_updated", "cpu_seconds"),
    *(PUBLICATION, CHANGES, PUBLISHED, BEGAN_AT),
)


class Liar:
    """An engine that is wrong about some structures.

    Attributes
    ----------
    computed
        Formulas, in order.
    wanted
        Decides by formula and number of the evaluation, of this purpose, whether to lie.
    """

    def __init__(self):
        self.computed, self.keys, self.count, self.change = [], set(), 0, None
        self.wanted = lambda _formula, _number: False

    def begin(self, wanted, change):
        self.count, self.wanted, self.change = 0, wanted, change

    def rest(self):
        self.wanted = lambda _formula, _number: False

    def answer(self, atoms, results):
        formula = atoms.get_chemical_formula()
        self.computed.append(formula)
        self.count += 1
        # A code that errs about a structure errs again.
        key = structure_key(atoms)
        if key in self.keys or self.wanted(formula, self.count - 1):
            self.keys.add(key)
            self.change(results, len(atoms))


def energy_off_by(lie):
    """Energy wrong by so many eV/atom."""

    def change(results, n_atoms):
        results["energy"] += lie * n_atoms

    return change


def forces_times(factor):
    def change(results, _n_atoms):
        results["forces"] = factor * results["forces"]

    return change


@pytest.fixture
def liar(monkeypatch):
    """An engine that lies on demand."""
    calculate, liar = EMT.calculate, Liar()

    def calculate_and_lie(self, atoms, properties, system_changes):
        calculate(self, atoms, properties, system_changes)
        liar.answer(atoms, self.results)

    monkeypatch.setattr(EMT, "calculate", calculate_and_lie)
    return liar


@pytest.fixture
def run(make_campaign, work_off_round, liar):
    """Function: a campaign from its prototypes to the hull; lies by purpose of a round."""

    def run_campaign(lies=None, name="tiny", elements=("Cu", "Pd")):
        campaign = make_campaign(name, **SETTINGS, campaign={"elements": list(elements)})
        add_prototypes(campaign)
        decisions.first_round(campaign)
        return finish(campaign, work_off_round, liar, dict(lies or {}))

    return run_campaign


def finish(campaign, work_off_round, liar, lies):
    store = campaign.store
    for _ in range(60):
        if store.campaign()["finished"]:
            return campaign
        round_ = store.last_round()
        selected = store.selected(round=round_.number)
        # Rounds of a purpose that label nothing are not what is meant.
        has_work = bool(selected) or round_.purpose == "final"
        liar.rest()
        if has_work and round_.purpose in lies:
            liar.begin(*lies.pop(round_.purpose))
        with contextlib.suppress(DFTError):
            work_off_round(campaign, round_)
        decisions.decide(campaign, round_)
    raise AssertionError("the campaign has no end")


HONEST = {}


@pytest.fixture
def honest(run):
    """Energies of the stable phases, by formula, and evaluations, without a lie; computed once."""
    if not HONEST:
        campaign = run(name="honest")
        assert quarantined(campaign) == []
        assert not campaign.store.campaign()["doubts"]
        HONEST["found"] = (stable(campaign), campaign.store.dft_costs())
        # The next campaign shall pay for its own labels.
        for name in campaign.store._database.list_collection_names():
            campaign.store._database[name].delete_many({})
    return HONEST["found"]


def stable(campaign):
    return {e.formula_pretty: e.energy_per_atom for e in final_hull(campaign.store).stable}


def quarantined(campaign):
    """Key, purpose and reason of what was put aside."""
    return [
        (result.key, result.purpose, result.judged, result.reason)
        for result in campaign.store.quarantined_here()
    ]


def number(wanted):
    return lambda _formula, n: n == wanted


def compound(wanted):
    """The first evaluation of a cell of this formula."""
    seen = []

    def is_it(formula, _n):
        if formula == wanted and not seen:
            seen.append(formula)
            return True
        return False

    return is_it


# The purpose, which structure, what is wrong, how it is judged, and what the reason says.
LIES = {
    "seed +3": ("seed", compound("CuPd"), energy_off_by(3.0), "contradiction", "contradicts all"),
    "seed -3": ("seed", compound("CuPd"), energy_off_by(-3.0), "range", "from a mixture"),
    "seed +0.4": ("seed", compound("Cu2Pd"), energy_off_by(0.4), "contradiction", "foretell"),
    "pure -3": ("seed", compound("Pd"), energy_off_by(-3.0), "range", "from a mixture"),
    "learn -3": ("learn", number(3), energy_off_by(-3.0), "range", "from a mixture"),
    "validate +3": ("validate", number(2), energy_off_by(3.0), "contradiction", "chose it expect"),
    "refine -0.4": ("refine", number(0), energy_off_by(-0.4), "contradiction", "chose it expect"),
    "refine +3": ("refine", number(1), energy_off_by(3.0), "contradiction", "contradicts all"),
}


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES)
def test_a_single_lie_is_put_aside_and_the_hull_is_that_of_the_truth(lie, honest, run, liar):
    purpose, which, change, judged, says = LIES[lie]
    campaign = run({purpose: (which, change)})
    assert len(liar.keys) == 1
    aside = quarantined(campaign)
    assert [(p, j) for _, p, j, _ in aside] == [(purpose, judged)]
    assert says in aside[0][3]
    # Relaxations from other starts end within their force tolerance of the same minimum.
    assert stable(campaign) == pytest.approx(honest[0], abs=TIE)
    # It costs what learning in its place costs.
    evaluations = [
        sum(c["evaluations"] for c in costs.values())
        for costs in (campaign.store.dft_costs(), honest[1])
    ]
    assert evaluations[0] < 1.6 * evaluations[1]
    assert campaign_report(campaign.store)["quarantined"][0]["reason"] == aside[0][3]


@pytest.fixture
def lie_in_relaxations(monkeypatch):
    """Function: let the engine's relaxations of CuPd end with energies off by so many eV/atom."""
    relax = ASEEngine.relax

    def lie_by(lie):
        def relax_and_lie(self, atoms, *words, **settings):
            result = relax(self, atoms, *words, **settings)
            off = lie * len(atoms) * (set(atoms.symbols) == {"Cu", "Pd"} and is_even(atoms))
            return dataclasses.replace(result, energy=result.energy + off)

        monkeypatch.setattr(ASEEngine, "relax", relax_and_lie)

    return lie_by


def is_even(atoms):
    return 2 * list(atoms.symbols).count("Cu") == len(atoms)


@pytest.mark.slow
@pytest.mark.parametrize("lie", [-3.0, 3.0, 0.4, -0.4])
def test_final_relaxations_that_lie_fail_with_their_reason(lie, honest, run, lie_in_relaxations):
    lie_in_relaxations(lie)
    campaign = run()
    aside = quarantined(campaign)
    assert aside
    where = "above" if lie > 0 else "below"
    for _, purpose, judged, reason in aside:
        assert (purpose, judged) == ("final", "relaxation")
        assert f"{abs(lie):.1f}" in reason
        assert f"eV/atom {where} the single point" in reason
    hull = final_hull(campaign.store)
    assert {f["formula_pretty"] for f in hull.failed} == {"CuPd"}
    assert all(f["reason"].startswith("quarantined: ") for f in hull.failed)
    others = {formula: energy for formula, energy in honest[0].items() if formula != "CuPd"}
    assert stable(campaign) == pytest.approx(others, abs=TIE)
    # Repeated, nothing is computed and nothing changes.
    dft_steps.relax_with_dft(campaign, campaign.store.last_round(), *EVERYTHING)
    assert quarantined(campaign) == aside


def blind(monkeypatch):
    """No judgement."""
    monkeypatch.setattr(quarantine, "judge_range", lambda *_: quarantine.Verdicts())
    monkeypatch.setattr(quarantine, "_contradictions", lambda *_: {})
    monkeypatch.setattr(quarantine, "relaxation_verdict", lambda *_: "")


@pytest.mark.slow
def test_without_judgement_relaxations_that_lie_are_on_the_hull(
    honest, run, lie_in_relaxations, monkeypatch
):
    blind(monkeypatch)
    lie_in_relaxations(-0.4)
    found = stable(run())
    assert found["CuPd"] == pytest.approx(honest[0]["CuPd"] - 0.4, abs=TIE)
    assert len(found) < len(honest[0])


@pytest.mark.slow
def test_without_judgement_a_low_label_keeps_others_from_the_hull(honest, run, monkeypatch):
    blind(monkeypatch)
    try:
        found = stable(run({"refine": (number(0), energy_off_by(-0.4))}))
    except CampaignError:
        return
    assert found != pytest.approx(honest[0], abs=TIE)


@pytest.fixture
def seeded(make_campaign, liar):
    """Function: a campaign whose seed is labelled by an engine that lies."""

    def label_seed(wanted, change, name="tiny"):
        campaign = make_campaign(name, **SETTINGS)
        add_prototypes(campaign)
        decisions.first_round(campaign)
        liar.begin(wanted, change)
        with contextlib.suppress(DFTError):
            dft_steps.label(campaign, campaign.store.round(0), *EVERYTHING)
        liar.rest()
        return campaign

    return label_seed


def test_without_judgement_a_lie_of_the_seed_spoils_the_fit(seeded, monkeypatch):
    lie = (compound("CuPd"), energy_off_by(-3.0))
    campaign = seeded(*lie, name="judged")
    potential_steps.fit_potential(campaign, campaign.store.round(0))
    assert len(quarantined(campaign)) == 1
    blind(monkeypatch)
    other = seeded(*lie, name="blind")
    # Computed for both, and put aside for both; the one that is blind learns it.
    other.store.release_dft(quarantined(campaign)[0][0])
    potential_steps.fit_potential(other, other.store.round(0))
    right, spoilt = campaign.store.potential(0), other.store.potential(0)
    assert spoilt.n_training == right.n_training + 1
    assert spoilt.loss > 10.0 * right.loss


def test_a_label_that_is_no_number_failed_and_nothing_is_quarantined(seeded):
    campaign = seeded(compound("CuPd"), forces_times(np.nan))
    potential_steps.fit_potential(campaign, campaign.store.round(0))
    assert ["not a finite number" in r.reason for r in campaign.store.failed_dft()] == [True]
    assert quarantined(campaign) == []


def test_without_forces_a_label_contradicts_the_others(seeded, liar):
    campaign = seeded(compound("Cu2Pd"), forces_times(0.0))
    potential_steps.fit_potential(campaign, campaign.store.round(0))
    assert len(liar.keys) == 1
    assert ["forces or stress" in reason for *_, reason in quarantined(campaign)] == [True]


def test_if_too_many_contradict_the_potential_nothing_is_put_aside(seeded, mongo):
    lies = itertools.cycle([energy_off_by(0.6), energy_off_by(-0.6)])

    def change(results, n_atoms):
        next(lies)(results, n_atoms)

    campaign = seeded(lambda _formula, n: n in range(8, 30, 4), change)
    potential_steps.fit_potential(campaign, campaign.store.round(0))
    assert quarantined(campaign) == []
    assert campaign.store.potential(0).n_training == len(labelled_structures(campaign))
    doubts = campaign.store.campaign()["doubts"]
    assert "labels contradict the potential that has learnt them" in doubts["0"]
    assert campaign_status(campaign.store, mongo)["doubts"] == doubts


def state_of(database):
    return {
        name: [
            repr(sorted((k, v) for k, v in document.items() if k not in OF_THE_MOMENT))
            for document in database[name].find({}).sort([("number", 1), ("key", 1)])
        ]
        for name in ("potentials", "dft_results")
    }


def test_killed_at_any_write_a_fit_puts_aside_the_same(seeded, mongo, mortal, put_back):
    # Two that are outside the range, and one that contradicts the others.
    campaign = seeded(lambda _formula, n: n in (14, 17, 20), energy_off_by(-3.0))
    results = mongo.database.dft_results
    keys = [one.key for one in campaign.store.selected()]
    off = campaign.store.dft_result(keys[22])
    results.update_one({"key": off.key}, {"$set": {"energy": off.energy + 0.5 * len(off.numbers)}})
    before, round_ = (
        {name: list(mongo.database[name].find({})) for name in OURS},
        campaign.store.round(0),
    )
    potential_steps.fit_potential(campaign, round_)
    assert {key for key, *_ in quarantined(campaign)} == {keys[i] for i in (14, 17, 20, 22)}
    expected, lives = state_of(mongo.database), 0
    while True:
        put_back(mongo, before)
        with mortal(lives) as fate:
            potential_steps.fit_potential(campaign, round_)
        if not fate.dead:
            break
        potential_steps.fit_potential(campaign, round_)
        assert state_of(mongo.database) == expected, f"killed after {lives} writes"
        lives += 1
    assert lives >= 5


def test_what_is_quarantined_is_not_computed_again_and_not_learnt_by_others(seeded, liar):
    lie = (compound("CuPd"), energy_off_by(-3.0))
    first = seeded(*lie)
    potential_steps.fit_potential(first, first.store.round(0))
    (aside,) = quarantined(first)
    n = len(liar.computed)
    second = seeded(lambda *_: False, None, name="second")
    # A new campaign tries each element.
    assert liar.computed[n:] == ["Cu", "Pd"]
    potential_steps.fit_potential(second, second.store.round(0))
    assert aside[0] not in {result.key for _, result in labelled_structures(second)}
    assert second.store.potential(0).n_training == first.store.potential(0).n_training
    assert list(second.store.quarantined_dft(second.store.selected_keys())) == [aside[0]]


def test_what_was_released_by_hand_is_learnt_and_not_judged_again(seeded):
    campaign = seeded(compound("CuPd"), energy_off_by(-3.0))
    potential_steps.fit_potential(campaign, campaign.store.round(0))
    (aside,) = quarantined(campaign)
    n = campaign.store.potential(0).n_training
    campaign.store.release_dft(aside[0])
    campaign.store._database.potentials.delete_many({})
    potential_steps.fit_potential(campaign, campaign.store.round(0))
    assert aside[0] not in {key for key, *_ in quarantined(campaign)}
    assert campaign.store.potential(0).n_training == n + 1


def test_structures_whose_label_was_wrong_are_left_alone_while_learning(seeded, mongo):
    from hullscreen.workflows.rounds import beyond_dft

    campaign = seeded(compound("CuPd"), energy_off_by(-3.0))
    potential_steps.fit_potential(campaign, campaign.store.round(0))
    assert beyond_dft(campaign) == []
    mongo.database.dft_results.update_one({"state": "quarantined"}, {"$set": {"purpose": "learn"}})
    (result,) = campaign.store.quarantined_here()
    assert beyond_dft(campaign) == [result.structure_index]
