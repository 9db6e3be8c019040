"""OPTIMADE's own models, server and validator accept the JSON lines."""

import contextlib
import json
import socket
import threading
import time
from datetime import datetime

import pytest

# optimade's server and what it is made of warn of their own ways.
pytestmark = pytest.mark.filterwarnings("ignore")

PATIENCE_S = 60


@pytest.fixture
def lines(export):
    """The lines of an export, and where it is."""
    path = export("optimade", "cu-pd.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()], path


def test_every_line_is_what_the_specification_names(lines, hull):
    from optimade.models import StructureResource

    header, info, *structures = lines[0]
    assert header["x-optimade"]["meta"]["api_version"] == "1.2.0"
    provenance = header["x-optimade"]["meta"]["_hullscreen_provenance"]
    assert provenance["campaign"] == "cu-pd"
    assert (info["type"], info["id"]) == ("info", "structures")
    for one, entry in zip(structures, hull.entries, strict=True):
        StructureResource(**one)
        attributes = one["attributes"]
        ours = {name for name in attributes if name.startswith("_hullscreen_")}
        assert ours == info["properties"].keys()
        assert attributes["_hullscreen_energy_above_hull"] == entry.energy_above_hull
        assert attributes["nsites"] == entry.nsites
        assert sum(attributes["elements_ratios"]) == pytest.approx(1.0, abs=1e-12)
    formulas = {
        one["attributes"]["_hullscreen_formula_pretty"]: (
            one["attributes"]["chemical_formula_reduced"],
            one["attributes"]["chemical_formula_anonymous"],
        )
        for one in structures
    }
    assert formulas["Cu"] == ("Cu", "A")
    assert all(anonymous in ("A", "AB", "A2B") for _, anonymous in formulas.values())


@contextlib.contextmanager
def served(path, info):
    """Address of optimade's server on loopback with the structures of a file."""
    import uvicorn
    from optimade.server.config import ServerConfig
    from optimade.server.create_app import create_app

    fields = [
        {"name": name, **{key: of[key] for key in ("description", "type", "unit")}}
        for name, of in info["properties"].items()
    ]
    app = create_app(
        ServerConfig(
            database_backend="mongomock",
            insert_test_data=False,
            insert_from_jsonl=path,
            provider={"name": "hullscreen", "description": "alloys", "prefix": "hullscreen"},
            provider_fields={"structures": fields},
            log_level="error",
        )
    )
    collection = app.state.entry_collections["structures"].collection
    # The server compares moments as MongoDB's dates, and takes those of a file in as texts.
    for document in list(collection.find()):
        changed = datetime.fromisoformat(document["last_modified"])
        collection.update_one({"_id": document["_id"]}, {"$set": {"last_modified": changed}})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline, "optimade's server did not start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def test_the_validator_accepts_a_server_of_it(lines, hull, monkeypatch, tmp_path):
    import requests
    from optimade.validator import ImplementationValidator

    # Nobody's own settings of such a server.
    monkeypatch.setenv("OPTIMADE_CONFIG_FILE", str(tmp_path / "none.json"))
    (_, info, *_), path = lines
    with served(path, info) as address:
        validator = ImplementationValidator(base_url=address, verbosity=-1, respond_json=True)
        validator.validate_implementation()
        assert validator.results.failure_messages == []
        assert validator.results.internal_failure_messages == []
        assert validator.valid
        query = '_hullscreen_energy_above_hull <= 0.001 AND elements HAS ALL "Cu", "Pd"'
        found = requests.get(
            f"{address}/v1/structures",
            params={"filter": query, "response_fields": "_hullscreen_prototype"},
            timeout=PATIENCE_S,
        ).json()["data"]
    assert {one["attributes"]["_hullscreen_prototype"] for one in found} == {
        entry.prototype
        for entry in hull.entries
        if entry.energy_above_hull <= 1e-3 and all(entry.counts)
    }
