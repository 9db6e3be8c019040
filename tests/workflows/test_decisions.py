"""Decisions: what follows what, and that a decision killed anywhere ends as if nothing had been."""

import pytest

from hullscreen.workflows import decisions

# What differs between two decisions that are the same.
OF_THE_MOMENT = ("_id", "created_at", "last_updated", "cpu_seconds")


def kind_of(decided):
    """Name of a decision by what it began."""
    begun = decided.next_round
    if decided.round is None:
        return "begin"
    if begun is None:
        return "finish"
    if begun.purpose == "learn" and begun.stage == decided.round.stage:
        return "learn" if begun.fits else "wave"
    return f"{decided.round.purpose} to {begun.purpose}"


def comparable(documents):
    """Documents without what differs by chance, in an order of their own."""
    return {
        name: sorted(
            (
                repr(sorted((k, v) for k, v in document.items() if k not in OF_THE_MOMENT))
                for document in documents[name]
            ),
        )
        for name in ("campaigns", "structures", "selected", "rounds", "potentials", "dft_results")
        if name in documents
    }


def test_history(tiny_history):
    for d in tiny_history:
        n = len([s for s in d.after["selected"] if s["round"] == getattr(d.next_round, "number", None)])
        print(kind_of(d), d.next_round, n)
    print({s.get("dropped", {}).get("reason") for s in tiny_history[-1].after["structures"]})
    assert 0
