"""How long the twenty questions of ``database/QUERIES.md`` take, by command and in plain pymongo.

The documents are made up, 20,000 of them; with ``HULLSCREEN_FULL_BENCHMARKS=1`` 400,000, as many as
the pool of a ternary, of which the same shares are screened, relaxed with DFT and stable.
"""

import os
import time
from itertools import islice

import numpy as np
import pytest
from pymatgen.core import Composition

from hullscreen.database import structures_of
from hullscreen.database.campaign_store import CampaignStore
from hullscreen.database.connection import Connection, connect
from hullscreen.database.dft_documents import DFTDocument
from hullscreen.database.documents import TOO_FAR, CampaignDocument, Geometry, Prototype, Relaxed
from hullscreen.database.embedded_server import acquire, stop
from hullscreen.database.round_documents import RoundDocument, Selected
from hullscreen.launch.command_line import main
from hullscreen.launch.settings import from_tables
from hullscreen.workflows.publishing import publish_hull
from hullscreen.workflows.refinement import TWIN
from hullscreen.workflows.rounds import UNCONVERGED

pytestmark = [pytest.mark.benchmark, pytest.mark.slow]

FULL = os.environ.get("HULLSCREEN_FULL_BENCHMARKS") == "1"
STRUCTURES = 400_000 if FULL else 20_000
LABELS = STRUCTURES // 100
FINAL = STRUCTURES // 1000
REPEATED = 3
AT_ONCE = 5000
ATOMS = 8
LATTICES = ("fcc", "bcc", "hcp")
# Heights, eV/atom: a tenth lies within 0.1, a hundredth or so within 0.025.
HIGHEST, POWER = 0.5, 0.7
SETTINGS = {"campaign": {"name": "cu-pd", "elements": ["Cu", "Pd"]}}


def crystal(rng, n_atoms):
    """Cell and positions of a cubic lattice, a little distorted: no two are alike."""
    corners = np.array([(i & 1, i >> 1 & 1, i >> 2 & 1) for i in range(n_atoms)])
    positions = 2.7 * corners + rng.normal(scale=0.01, size=(n_atoms, 3))
    return Geometry(5.4 * np.eye(3), positions)


def documents(n):
    """Structures as a finished campaign leaves them, in the order of the pool."""
    rng = np.random.default_rng(0)
    orders = rng.permutation(n).tolist()
    for index in range(n):
        n_copper = int(rng.integers(0, ATOMS + 1))
        atoms = {"Cu": n_copper, "Pd": ATOMS - n_copper}
        present = {symbol: m for symbol, m in atoms.items() if m}
        geometry = crystal(rng, ATOMS)
        known = index < 100
        # Small cells come first, and there are few.
        size = 2 + index % 2 if index < 60 else ATOMS
        name = f"{LATTICES[index % 3]}-{size}-{index % 7}-{index:06d}"
        height = HIGHEST * float(rng.random()) ** POWER
        stage = 2 if height < 0.1 else 1
        grade = float(rng.lognormal(0.0, 0.6))
        outcome = "volume_limit" if index % 200 == 7 and not known else "converged"
        relaxed = Relaxed(
            stage, stage, outcome, -3.5 + height, 25, min(grade, 1.5), grade, geometry,
            snapshot=geometry if grade > 2 else None,
        )  # fmt: skip
        prototype = Prototype(
            campaign="cu-pd", index=index, order=orders[index],
            prototype="fcc-2-2-01" if index == 11 else name, nsites=ATOMS,
            counts=(n_copper, ATOMS - n_copper),
            formula_pretty=Composition(present).reduced_formula, chemsys="-".join(present),
            elements=tuple(present), nelements=len(present), composition=present,
            species=np.repeat(np.arange(2), [n_copper, ATOMS - n_copper]), start=geometry,
            stage=stage,
        )  # fmt: skip
        document = prototype.to_bson() | {
            "relaxed": relaxed.to_bson(),
            "relaxations": [relaxed.numbers()] * stage,
        }
        if outcome != "converged":
            reason = {"stage": stage, "round": 9, "reason": UNCONVERGED, "outcome": outcome}
        else:
            document |= {
                "energy_per_atom": -3.5 + height, "formation_energy_per_atom": height - 0.1,
                "energy_above_hull": height, "energy_from": f"MTP of screen {stage}",
            }  # fmt: skip
            reason = {
                "stage": stage, "round": 9, "reason": TOO_FAR, "energy_above_hull": height,
                "window": 0.036, "sigma": 0.009,
            }  # fmt: skip
            if index % 1000 == 500:
                reason = {"stage": 2, "round": 9, "reason": TWIN, "same_as": 3}
        yield document | {"dropped": reason}


def label(campaign, index, kind, geometry, energy):
    """A result of DFT, by a key of its own."""
    return DFTDocument(
        key=f"{kind}-{index}", kind=kind, state="done", campaign=campaign, purpose="refine",
        structure_index=index, chemsys="Cu-Pd", engine="EMT", numbers=(29,) * ATOMS,
        geometry=geometry, energy=energy,
    )  # fmt: skip


def relax_with_dft(store, database, n_final):
    """Give the campaign its labels and the final stage; both elements among its structures."""
    rng = np.random.default_rng(1)
    pure = [
        int(database["structures"].find_one({"formula_pretty": symbol})["index"])
        for symbol in ("Cu", "Pd")
    ]
    chosen = tuple(dict.fromkeys([*pure, *range(20, 20 + n_final)]))
    found = list(database["structures"].find({"index": {"$in": list(chosen)}}))
    selected = [
        Selected("cu-pd", 9, i, "refine", i, None, -3.4, f"single_point-{i}",
                 np.zeros(ATOMS, dtype=np.int32), crystal(rng, ATOMS))
        for i in range(LABELS)
    ]  # fmt: skip
    common = {"campaign": "cu-pd", "potential": 9, "fits": False, "wave": STRUCTURES}
    store.insert_round(RoundDocument(number=9, stage=2, purpose="refine", **common), selected)
    store.insert_round(
        RoundDocument(number=10, stage=3, purpose="final", final_indices=chosen, **common), []
    )
    results = [
        label("cu-pd", one.structure_index, "single_point", one.geometry, -27.0) for one in selected
    ]
    results += [
        label("cu-pd", one["index"], "relaxation", crystal(rng, ATOMS), -28 + rng.random())
        for one in found
    ]
    database["dft_results"].insert_many([one.to_bson() for one in results])
    database["structures"].update_many(
        {"index": {"$in": list(chosen)}}, {"$set": {"stage": 3}, "$unset": {"dropped": ""}}
    )
    failed = {"state": "failed", "key": "none", "reason": "no end"}
    for place, index in enumerate(chosen):
        done = {"state": "done", "key": f"relaxation-{index}"}
        store.save_final(index, failed if place % 10 == 9 else done)
    publish_hull(store)
    # Crystals that nobody has relaxed have no symmetry.
    for stable, number, symbol in ((True, 194, "P6_3/mmc"), (False, 71, "Immm")):
        symmetry = {"symbol": symbol, "number": number, "crystal_system": "Hexagonal"}
        change = {"$set": {"symmetry": symmetry}}
        database["structures"].update_many({"is_stable": stable}, change)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the campaign ``cu-pd`` on an embedded server."""
    parent = tmp_path_factory.mktemp("questions")
    directory = parent / "cu-pd"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(
        '[campaign]\nname = "cu-pd"\nelements = ["Cu", "Pd"]\n'
    )
    with acquire(directory) as server:
        database = connect(server.uri, "hullscreen")
        connection = Connection(database, server.uri, "hullscreen", embedded=True, server=server)
        store = CampaignStore(connection, "cu-pd")
        settings = from_tables(SETTINGS)
        store.create(
            CampaignDocument(
                "cu-pd", "Cu-Pd", ("Cu", "Pd"), settings.stored_tables(), {"name": "EMT"},
                str(directory / "calculations"), finished=True,
            )
        )  # fmt: skip
        store.ensure_indexes()
        made = documents(STRUCTURES)
        while part := list(islice(made, AT_ONCE)):
            database["structures"].insert_many(part, ordered=False)
        relax_with_dft(store, database, FINAL)
        yield parent
        database.client.close()
    stop(directory)


def slowest(answer):
    """Seconds of the slowest of some answers, the first one left out, and how many it gave."""
    answer()
    times = []
    for _ in range(REPEATED):
        before = time.perf_counter()
        n = answer()
        times.append(time.perf_counter() - before)
    return max(times), n


def test_questions(questions, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    rows = []
    with structures_of("cu-pd") as structures:
        for question in questions:

            def by_command(question=question):
                assert main([*question.command, "--json"]) == 0
                return len(capsys.readouterr().out)

            def by_pymongo(question=question):
                return len(list(question.plainly(structures)))

            by_hand, n = slowest(by_pymongo)
            assert n > 0, question.title
            rows.append((slowest(by_command)[0], by_hand, n, question.title))
    with capsys.disabled():
        print(f"\n{STRUCTURES:,} structures; slowest of {REPEATED}, s: command, pymongo; found")
        for command, by_hand, n, title in rows:
            print(f"{command:6.3f} {by_hand:6.3f} {n:7,}  {title}")
