"""A structure's story in sentences, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STAGES = {"screen 1": "Screen 1", "screen 2": "Screen 2", "final": "The final stage"}
SCREENS = {"screen 1": "The first potential", "screen 2": "The second potential"}
PURPOSES = {
    "seed": "as one of the first structures that the potentials learnt",
    "learn": "because the potential would have had to extrapolate",
    "validate": "to measure the error of the first potential",
    "refine": "because it may be on the hull",
    "borrowed": "for another campaign",
}
Story = Mapping[str, Any]


def sentences(story: Story) -> list[str]:
    """What happened to a structure, in order; plain text, of which no character is special."""
    told = [_beginning(story)]
    told += [_relaxation(one) for one in story["relaxations"]]
    told += [_single_point(one) for one in story["single_points"]]
    told += [*_dropped(story), *_dft_relaxation(story), *_place(story), *_twins(story)]
    if len(told) == 1:
        told.append("No potential has relaxed it yet.")
    elif story["dropped"] is None and story["dft_relaxation"] is None:
        told.append(f"It is in {story['stage'] or 'the pool'}, and nothing is decided yet.")
    return told


def _beginning(story: Story) -> str:
    n = story["nsites"]
    atoms = "" if n is None else f", {n} atom{'s' * (n != 1)} in the cell"
    return (
        f"Number {story['structure_index']} is {story['formula_pretty'] or 'a structure'}, which "
        f"began as the prototype {story['prototype'] or 'without a name'}{atoms}."
    )


def _relaxation(one: Story) -> str:
    known = [("round", one["potential"]), ("level", one["level"])]
    whose = ", ".join(f"{name} {value}" for name, value in known if value is not None)
    energy = "" if one["energy_per_atom"] is None else f" at {one['energy_per_atom']:z.4f} eV/atom"
    steps = "" if one["evaluations"] is None else f" after {_evaluations(one['evaluations'])}"
    grade = one["highest_grade"]
    reached = "" if grade is None else f"; the extrapolation grade reached {grade:.2f}"
    ended = one["outcome"].replace("_", " ") or "an unknown outcome"
    potential = SCREENS.get(one["stage"], "A potential") + (f" ({whose})" if whose else "")
    return f"{potential} relaxed it: {ended}{energy}{steps}{reached}."


def _single_point(one: Story) -> str:
    why = PURPOSES.get(one["purpose"], f"for {one['purpose']}")
    # The first structures are labelled away from any minimum.
    what = "the energy of a strained copy" if one["purpose"] == "seed" else "its energy there"
    begun = f"Round {one['round']} asked DFT for {what}, {why}"
    if one["grade"] is not None:
        begun += f" (grade {one['grade']:.2f})"
    if one["state"] == "waiting":
        return f"{begun}; it is still to come."
    if one["state"] != "done" or one["energy_per_atom"] is None:
        return f"{begun}: {one['state']}, {one['reason'] or 'without a reason'}."
    text = f"{begun}: {one['energy_per_atom']:z.4f} eV/atom"
    if one["predicted_energy_per_atom"] is not None:
        error = one["energy_per_atom"] - one["predicted_energy_per_atom"]
        text += f", {_mev(abs(error))} {'above' if error > 0 else 'below'} what was predicted"
    return text + "."


def _dropped(story: Story) -> list[str]:
    dropped = story["dropped"]
    if dropped is None:
        return []
    where = f"{STAGES.get(dropped['stage'], 'A stage')} left it behind"
    if dropped["round"] is not None:
        where += f" in round {dropped['round']}"
    if dropped["same_as"] is not None:
        return [
            f"{where}: {dropped['reason']}, number {dropped['same_as']}, which stands for both."
        ]
    if dropped["energy_above_hull"] is None:
        outcome = dropped["outcome"].replace("_", " ")
        return [f"{where}: {dropped['reason']}{f' ({outcome})' if outcome else ''}."]
    source = "DFT single points" if dropped["by_single_point"] else "the potential's energies"
    height = _mev(dropped["energy_above_hull"])
    told = [f"{where}: it lay {height} above the hull of {source}{_margin(dropped)}."]
    if dropped["competitors"]:
        told.append(f"There it competed with {phases(dropped['competitors'])}.")
    return told


def _margin(dropped: Story) -> str:
    if dropped["margin"] is None:
        return ""
    beyond = _mev(dropped["margin"])
    if dropped["window"] is None:
        return f", {beyond} more than the {_mev(dropped['possible_gain'])} that a relaxation gains"
    text = f", {beyond} beyond the window of {_mev(dropped['window'])}"
    sigma = dropped["sigma"]
    if sigma:
        text += f" (σ = {_mev(sigma)}: {dropped['energy_above_hull'] / sigma:.1f} σ above the hull)"
    return text


def _dft_relaxation(story: Story) -> list[str]:
    relaxation = story["dft_relaxation"]
    if relaxation is None:
        return []
    if relaxation["state"] == "waiting":
        return ["It is chosen for a DFT relaxation, which is still to come."]
    if relaxation["state"] != "done" or relaxation["energy_per_atom"] is None:
        reason = relaxation["reason"] or "no reason is recorded"
        return [f"DFT could not relax it ({relaxation['state'] or 'unknown'}): {reason}."]
    text = f"DFT relaxed it: {relaxation['energy_per_atom']:z.4f} eV/atom"
    if relaxation.get("n_evaluations"):
        text += f" after {_evaluations(relaxation['n_evaluations'])}"
    group = (story["symmetry"] or {}).get("symbol")
    return [text + (f", in space group {group}." if group else ".")]


def _place(story: Story) -> list[str]:
    place = story["place"]
    if place is None:
        return []
    so_far = "" if place["finished"] else ", as far as DFT has come"
    if not place["is_stable"]:
        products = place["decomposes_to"] or []
        rest = f": it decomposes to {phases(products)}" if products else ""
        height = place["energy_above_hull"]
        above = "" if height is None else f"{_mev(height)} "
        return [f"It lies {above}above the hull of DFT relaxations{so_far}{rest}."]
    formation = story["formation_energy_per_atom"]
    energy = f", with a formation energy of {_mev(formation)}" if formation else ""
    told = [f"It is stable, on the hull of DFT relaxations{so_far}{energy}."]
    if place["below_others"] is not None:
        told.append(
            f"Without it {phases(place['replaced_by'])} would take its place, "
            f"{_mev(place['below_others'])} higher."
        )
    if place["next"]:
        told.append(
            "Of its composition come next "
            + ", ".join(
                f"number {one['structure_index']} ({_mev(one['energy_above_hull'])} above the hull)"
                for one in place["next"]
            )
            + "."
        )
    return told


def _twins(story: Story) -> list[str]:
    twins = story["twins"]
    if not twins["n"]:
        return []
    numbers = ", ".join(map(str, twins["numbers"]))
    more = "" if twins["n"] == len(twins["numbers"]) else ", …"
    n = twins["n"]
    return [f"{n} structure{'s' * (n != 1)} relaxed into the same crystal: {numbers}{more}."]


def phases(products: Sequence[Story]) -> str:
    """Phases with their numbers and, of several, their shares of the atoms."""
    if len(products) == 1:
        return f"{products[0]['formula']} (number {products[0]['structure_index']})"
    return " + ".join(
        f"{one['amount']:.2f} {one['formula']} (number {one['structure_index']})"
        for one in products
    )


def _evaluations(n: int) -> str:
    return f"{n} evaluation{'s' * (n != 1)}"


def _mev(energy: float) -> str:
    return f"{1e3 * energy:.2f} meV/atom"
