"""Steps of a round: repeated they change nothing, and killed anywhere they go on."""

import numpy as np
import pytest

from hullscreen.database.campaign_store import StructureBatch
from hullscreen.database.documents import now
from hullscreen.database.publications import BEGAN_AT, CHANGES, PUBLICATION, PUBLISHED
from hullscreen.database.round_documents import RoundDocument
from hullscreen.dft_adapters.ase_engine import ASEEngine
from hullscreen.dft_adapters.engine import CalculationError, EngineMissingError
from hullscreen.potentials.errors import CampaignError, DFTError
from hullscreen.potentials.relaxation import Outcome
from hullscreen.potentials.relaxation import Relaxed as Batch
from hullscreen.potentials.structures import join
from hullscreen.workflows import dft_steps, potential_steps
from hullscreen.workflows.dft_jobs import atoms_of, stored_energy
from hullscreen.workflows.labelled import labelled_structures

EVERYTHING = (0, 10**9)
# What differs between two runs of one step.
OF_THE_MOMENT = (
    *("_id", "created_at", "last_updated", "cpu_seconds"),
    *(PUBLICATION, CHANGES, PUBLISHED, BEGAN_AT),
)


@pytest.fixture
def computed(monkeypatch):
    """Structures that the engine computes, in order; those whose formula is in ``failing`` fail."""
    compute = ASEEngine._compute
    seen = []

    def noted(self, atoms, directory):
        seen.append(atoms.get_chemical_formula())
        if atoms.get_chemical_formula() in failing:
            raise CalculationError("diverged", f"{seen[-1]} diverged", directory)
        return compute(self, atoms, directory)

    failing = set()
    noted.failing = failing
    monkeypatch.setattr(ASEEngine, "_compute", noted)
    seen_and_failing = type("Computed", (), {"formulas": seen, "failing": failing})
    return seen_and_failing()


@pytest.fixture
def begun(tiny_history, make_campaign, mongo, put_back):
    """Function: campaign and round just after the first decision for a purpose."""
    campaign = make_campaign()

    def begin(purpose, *, fits):
        decided = next(
            d for d in tiny_history if (d.next_round.purpose, d.next_round.fits) == (purpose, fits)
        )
        put_back(mongo, decided.after)
        return campaign, decided.next_round

    return begin


def state_of(database):
    return {
        name: [
            repr(sorted((k, v) for k, v in document.items() if k not in OF_THE_MOMENT))
            for document in database[name].find({}).sort([("index", 1), ("number", 1), ("key", 1)])
        ]
        for name in ("structures", "selected", "rounds", "potentials", "dft_results")
    }


def test_every_step_repeated_changes_nothing(begun, mongo, computed):
    campaign, round_ = begun("refine", fits=True)
    for step in (
        lambda: dft_steps.label(campaign, round_, *EVERYTHING),
        lambda: potential_steps.fit_potential(campaign, round_),
        lambda: potential_steps.relax_structures(campaign, round_, *EVERYTHING),
    ):
        before = state_of(mongo.database)
        step()
        after = state_of(mongo.database)
        assert after != before
        n = len(computed.formulas)
        step()
        assert state_of(mongo.database) == after
        assert len(computed.formulas) == n


def test_the_final_relaxations_repeated_change_nothing(begun, mongo, computed):
    campaign, round_ = begun("final", fits=False)
    dft_steps.relax_with_dft(campaign, round_, *EVERYTHING)
    after, n = state_of(mongo.database), len(computed.formulas)
    assert campaign.store.count(**{"final.state": "done"}) == len(round_.final_indices)
    dft_steps.relax_with_dft(campaign, round_, *EVERYTHING)
    assert state_of(mongo.database) == after
    assert len(computed.formulas) == n


@pytest.mark.parametrize(
    ("purpose", "fits", "step"),
    [
        ("learn", True, lambda c, r: dft_steps.label(c, r, *EVERYTHING)),
        ("learn", False, lambda c, r: potential_steps.relax_structures(c, r, *EVERYTHING)),
        ("final", False, lambda c, r: dft_steps.relax_with_dft(c, r, *EVERYTHING)),
    ],
)
def test_killed_at_any_write_a_step_goes_on_where_it_was(
    purpose, fits, step, begun, mongo, computed, mortal, monkeypatch
):
    # Who was killed while the hull was written leaves it to others, who wait for a while.
    monkeypatch.setattr(dft_steps, "PUBLISHED_EVERY_S", 0)
    campaign, round_ = begun(purpose, fits=fits)
    step(campaign, round_)
    expected, n = state_of(mongo.database), len(computed.formulas)
    lives = 0
    while True:
        begun(purpose, fits=fits)
        computed.formulas.clear()
        with mortal(lives) as fate:
            step(campaign, round_)
        if not fate.dead:
            break
        step(campaign, round_)
        assert state_of(mongo.database) == expected, f"killed after {lives} writes"
        # Only what was just being stored is computed twice.
        assert len(computed.formulas) <= n + 1
        lives += 1
    assert lives > 5


def test_spans_of_labels_are_computed_by_their_jobs(begun, computed):
    campaign, round_ = begun("seed", fits=True)
    asked = campaign.store.selected(round=0)
    dft_steps.label(campaign, round_, 3, 5)
    keys = [one.key for one in asked]
    assert set(campaign.store.dft_results(keys)) == set(keys[3:5])
    assert len(computed.formulas) == 2


@pytest.mark.parametrize(
    ("purpose", "fits", "step"),
    [("seed", True, dft_steps.label), ("final", False, dft_steps.relax_with_dft)],
)
def test_an_engine_that_gives_other_energies_computes_nothing(
    purpose, fits, step, begun, computed, monkeypatch
):
    """As on another machine, with another version or other pseudopotentials."""
    campaign, round_ = begun(purpose, fits=fits)
    before = campaign.store.count_dft()
    content = ASEEngine.content
    monkeypatch.setattr(
        ASEEngine, "content", lambda self, elements: {**content(self, elements), "version": "0"}
    )
    with pytest.raises(EngineMissingError, match="other energies here than those that campaign"):
        step(campaign, round_, *EVERYTHING)
    assert computed.formulas == []
    assert campaign.store.count_dft() == before
    assert campaign.store.count(final={"$exists": True}) == 0
    assert campaign.store.failed_dft() == []


def test_labels_that_fail_are_named_and_the_others_are_stored(begun, computed):
    campaign, round_ = begun("seed", fits=True)
    computed.failing.add("Cu2Pd")
    asked = campaign.store.selected(round=0)
    bad = [one for one in asked if len(one.species) == 3 and one.species.sum() == 1]
    assert bad
    with pytest.raises(
        DFTError, match=f"^{len(bad)} of {len(asked)} calculations failed: "
    ) as error:
        dft_steps.label(campaign, round_, *EVERYTHING)
    for one in bad:
        assert f"structure {one.structure_index}: Cu2Pd diverged" in str(error.value)
    results = campaign.store.dft_results([one.key for one in asked])
    assert {results[one.key].state for one in bad} == {"failed"}
    assert sum(result.state == "done" for result in results.values()) == len(asked) - len(bad)
    # Learnt is what there is.
    training = potential_steps.training_set(campaign, until=0)
    assert len(training) == len(asked) - len(bad)
    # Repeated unasked, what failed for good is only told again; on request it is computed.
    computed.failing.clear()
    computed.formulas.clear()
    with pytest.raises(DFTError, match=f"^{len(bad)} of {len(asked)} calculations failed: "):
        dft_steps.label(campaign, round_, *EVERYTHING)
    assert computed.formulas == []
    dft_steps.label(campaign, round_, *EVERYTHING, now())
    assert computed.formulas == ["Cu2Pd"] * len(bad)


def test_a_fit_without_labels_of_an_element_says_so(begun, computed):
    campaign, round_ = begun("seed", fits=True)
    computed.failing |= {"Pd", "Pd2", "Pd3"}
    with pytest.raises(DFTError):
        dft_steps.label(campaign, round_, *EVERYTHING)
    with pytest.raises(
        CampaignError, match=r"no energy of pure Pd, .* first failure: Pd2? diverged; mend it"
    ):
        potential_steps.fit_potential(campaign, round_)
    assert campaign.store.potential(0) is None


@pytest.mark.parametrize("purpose", ["seed", "learn"])
def test_a_round_none_of_whose_labels_succeeded_says_so(purpose, begun, computed):
    campaign, round_ = begun(purpose, fits=True)
    everything = {f"Cu{a}Pd{b}" for a in ("", 2) for b in ("", 2)}
    computed.failing |= everything | {f"{e}{n}" for e in ("Cu", "Pd") for n in ("", 2, 3)}
    with pytest.raises(DFTError):
        dft_steps.label(campaign, round_, *EVERYTHING)
    n = len(campaign.store.selected(round=round_.number))
    with pytest.raises(
        CampaignError,
        match=f"any of the {n} structures of round {round_.number}; .* diverged; mend it and run",
    ):
        potential_steps.fit_potential(campaign, round_)


def test_final_relaxations_that_fail_are_noted_and_the_others_done(begun, computed):
    campaign, round_ = begun("final", fits=False)
    batch = campaign.store.structures({"stage": 3})
    # Their single points are known; a relaxation that needs no more would not fail.
    campaign.store._database.dft_results.delete_many({})
    mixed = {int(i) for i, n in zip(batch.indices, batch.counts, strict=True) if n.min() > 0}
    computed.failing |= {f"Cu{a}Pd{b}" for a in ("", 2) for b in ("", 2)}
    with pytest.raises(DFTError, match=f"^{len(mixed)} of {len(round_.final_indices)} calc"):
        dft_steps.relax_with_dft(campaign, round_, *EVERYTHING)
    finals = {
        document["index"]: document["final"]
        for document in campaign.store.documents({"final": {"$exists": True}}, ["index", "final"])
    }
    assert set(finals) == set(round_.final_indices)
    for index, final in finals.items():
        assert final["state"] == ("failed" if index in mixed else "done")
        assert ("diverged" in final.get("reason", "")) == (index in mixed)
    # `hullscreen labels` lists them all.
    assert set(campaign.store.final_keys()) == {final["key"] for final in finals.values()}
    computed.failing.clear()
    computed.formulas.clear()
    with pytest.raises(DFTError, match=f"^{len(mixed)} of {len(round_.final_indices)} calc"):
        dft_steps.relax_with_dft(campaign, round_, *EVERYTHING)
    assert computed.formulas == []
    dft_steps.relax_with_dft(campaign, round_, *EVERYTHING, now())
    assert campaign.store.count(**{"final.state": "done"}) == len(round_.final_indices)


def test_the_training_set_is_what_the_engine_computed(tiny_history, make_campaign, mongo, put_back):
    campaign = make_campaign()
    put_back(mongo, tiny_history[-1].after)
    labelled = labelled_structures(campaign, round={"$lte": 4})
    training = potential_steps.training_set(campaign, until=4)
    assert len(training) == len(labelled)
    n_later = len(potential_steps.training_set(campaign, until=5))
    assert n_later == len(labelled) + len(campaign.store.selected(round=5))
    for i in (0, len(labelled) // 2, len(labelled) - 1):
        cell, positions, species = training.structures.one(i)
        atoms = atoms_of(cell, positions, species, campaign.elements)
        own = campaign.engine.single_point(atoms, campaign.directory)
        assert training.energies[i] == own.energy
        rows = slice(*training.structures.offsets[i : i + 2])
        assert np.array_equal(training.forces[rows], own.forces)
        assert np.array_equal(training.stresses[i], own.stress)


def test_a_structure_that_was_asked_for_twice_is_learnt_once(begun, work_off_round):
    campaign, round_ = begun("seed", fits=True)
    dft_steps.label(campaign, round_, *EVERYTHING)
    n = len(potential_steps.training_set(campaign, until=0))
    selected = campaign.store._database.selected
    document = selected.find_one({"number": 0}, {"_id": 0})
    selected.insert_one({**document, "number": 99})
    assert len(campaign.store.selected()) == n + 1
    assert len(potential_steps.training_set(campaign, until=0)) == n


def test_relaxed_structures_are_what_the_potential_makes_of_them(begun, work_off_round):
    campaign, round_ = begun("learn", fits=False)
    potential_steps.relax_structures(campaign, round_, *EVERYTHING)
    potential, _ = campaign.potential(round_.potential)
    batch = campaign.store.structures(
        {"relaxed.outcome": "converged", "relaxed.potential": round_.potential}
    )
    assert len(batch) > 5
    own = potential.evaluate(batch.structures)
    # The relaxation's kernel and the evaluation's sum in different orders.
    assert own.energies / batch.structures.n_atoms == pytest.approx(
        batch.energies_per_atom, abs=1e-9
    )
    limit = campaign.settings.relaxation.force_tolerance
    assert np.abs(own.forces).max() <= limit
    waiting = campaign.store.waiting(round_, 0, round_.wave, limit=1000)
    assert set(waiting.indices.tolist()).isdisjoint(batch.indices.tolist())


def test_the_radial_range_begins_below_the_shortest_bond(begun, make_campaign):
    campaign, _ = begun("seed", fits=True)
    found = potential_steps.min_distance(campaign)
    # Copper's nearest neighbours are at 2.55 Å, and its volume is the smaller one.
    assert 0.7 * 2.55 < found < 0.85 * 2.55
    given = make_campaign("given", potential={"min_distance_angstrom": 1.9})
    assert potential_steps.min_distance(given) == 1.9


def test_energies_far_below_every_label_are_holes_of_the_potential(
    tiny_history, make_campaign, mongo, put_back
):
    campaign = make_campaign()
    put_back(mongo, tiny_history[-1].after)
    document = campaign.potential_document(0)
    lowest = min(
        stored_energy(result) / len(one.species)
        for one, result in labelled_structures(campaign, round=0)
    )
    assert document.lowest_energy_per_atom == lowest
    limits = potential_steps._limits(campaign, campaign.potential(0)[0], lowest)
    assert limits.lowest_energy_per_atom == lowest - potential_steps.DEPTH_OF_A_HOLE


@pytest.mark.parametrize("before", ["converged", "stalled"])
@pytest.mark.parametrize("again", [True, False])
def test_what_was_at_rest_stays_there_if_a_new_potential_cannot_relax_it(
    make_campaign, before, again
):
    cell, positions = 3.6 * np.eye(3), np.zeros((1, 3))
    species = np.zeros(1, dtype=np.int32)
    known = join([(cell, positions, species)])
    moved = join([(1.1 * cell, positions, species)])
    batch = StructureBatch(
        np.array([0]), np.array([[1, 0]]), known, np.array([-3.5]), np.array([1]), np.array([0.0]),
        [before],
    )  # fmt: skip
    zero = np.zeros(1)
    relaxed = Batch(
        moved, np.array([-3.0]), np.array([Outcome.STALLED], dtype=np.int32),
        np.ones(1, dtype=np.int32), zero, zero, moved, zero, zero,
    )  # fmt: skip
    round_ = RoundDocument(
        campaign="tiny", number=9, stage=2, purpose="refine", potential=9, fits=True, wave=5,
        again=again,
    )  # fmt: skip
    result = potential_steps._result(make_campaign(), round_, batch, relaxed, 0)
    kept = again and before == "converged"
    assert result.outcome == ("converged" if kept else "stalled")
    assert result.energy_per_atom == (-3.5 if kept else -3.0)
    np.testing.assert_array_equal(result.geometry.cell, cell if kept else 1.1 * cell)
    assert result.potential == 9
