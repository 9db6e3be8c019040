"""What hostile documents and requests do to a dashboard: nothing, and it tells them nothing."""

import json
import random
import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

pytestmark = pytest.mark.slow

SCRIPT = "<script>alert(1)</script>"
IMAGE = '<img src=x onerror="alert(2)">'
CALLBACK = "/_dash-update-component"
GUESSED = 1000
# Words that stand in tracebacks, and nowhere else.
INSIDE = ("Traceback", "site-packages", 'File "', "line ", "Error(", "hullscreen/launch")
SEED = 7
BRING_IN = """() => {
  const script = document.createElement("script");
  script.textContent = "window.broughtIn = true";
  document.body.append(script);
}"""


@pytest.fixture(scope="module")
def poisoned(small_campaign, mongo_server, tmp_path_factory):
    """A directory whose campaign is full of what should not be there."""
    from hullscreen.database.connection import connect

    name = "test_poisoned"
    database = connect(mongo_server.uri, name)
    source = small_campaign.connection.database
    for collection in source.list_collection_names():
        if documents := list(source[collection].find()):
            database[collection].insert_many(documents)
    structures = database["structures"]
    structures.update_many({}, {"$set": {"prototype": SCRIPT}})
    structures.update_one({"index": 0}, {"$set": {"formula_pretty": IMAGE}})
    structures.update_one({"index": 1}, {"$set": {"prototype": {"a": [1]}, "nsites": "many"}})
    structures.update_one({"index": 2}, {"$unset": {"counts": "", "stage": ""}})
    structures.update_one({"index": 3}, {"$set": {"relaxed.energy_per_atom": float("nan")}})
    structures.update_one({"index": 4}, {"$set": {"relaxed.highest_grade": float("inf")}})
    structures.update_one({"index": 5}, {"$set": {"relaxed": "gone", "dropped": 3}})
    structures.update_one({"index": 6}, {"$set": {"start": {"cell": [[float("nan")] * 3] * 3}}})
    failing = database["fireworks"].find_one({"spec._category": "dft"})
    database["fireworks"].update_one(
        {"_id": failing["_id"]}, {"$set": {"state": "FIZZLED", "name": IMAGE}}
    )
    database["launches"].update_one(
        {"launch_id": failing["launches"][-1]},
        {"$set": {"action.stored_data._exception": {"_stacktrace": f"x\nE: {SCRIPT}{IMAGE}"}}},
    )
    directory = tmp_path_factory.mktemp("poisoned") / "cu-pd"
    directory.mkdir()
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    (directory / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{name}"', text)
    )
    yield directory, failing["fw_id"]
    database.client.drop_database(name)
    database.client.close()


@pytest.fixture(scope="module")
def dashboard(poisoned, open_dashboard, tmp_path_factory):
    errors = tmp_path_factory.mktemp("hostile") / "errors"
    with open_dashboard(poisoned[0], "--allow-actions", errors=errors) as dashboard:
        yield dashboard
        assert dashboard.process.poll() is None
        assert dashboard.ask("/")[0] == 200
        assert "Traceback" not in errors.read_text()
        assert dashboard.token not in errors.read_text()
        assert dashboard.cookie.partition("=")[2] not in errors.read_text()


def test_a_thousand_guesses(dashboard):
    codes, answers = [], set()
    for number in range(GUESSED):
        token = f"{number:0{len(dashboard.token)}}"
        code, _, text = dashboard.ask(f"/?token={token}", signed=False)
        codes.append(code)
        answers.add(text)
    assert set(codes) == {401, 429}
    assert codes.count(429) > GUESSED / 2
    # The same words for every wrong one.
    assert len(answers) == 2
    assert dashboard.ask("/")[0] == 200
    assert dashboard.ask(f"/?token={dashboard.token}", signed=False)[0] == 303


# Requests


@pytest.fixture(scope="module")
def callbacks(dashboard):
    """What the page may ask for, as it says itself."""
    return json.loads(dashboard.ask("/_dash-dependencies")[2])


def harmless(code, text):
    """An answer, or a refusal in one sentence."""
    if code == 204:
        return True
    if code != 200:
        assert set(json.loads(text)) == {"message"}
    return code in {200, 400, 404} and not any(word in text for word in INSIDE)


ODD = [
    None, True, -1, 2**70, 1e300, "", "x" * 5000, SCRIPT, "../../etc/passwd", "\x00", "\ud800",
    [], [[]], {}, {"$gt": ""}, {"points": [{}]}, {"points": [{"customdata": 10**30}]},
    {"points": "no"}, [{"id": {}}], {"__class__": "x"},
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
def test_callbacks_with_odd_values(dashboard, callbacks, value):
    answered = set()
    for callback in callbacks:
        if callback.get("clientside_function"):
            continue
        output = callback["output"]
        body = {
            "output": output,
            "outputs": outputs_of(output),
            "inputs": [{**one, "value": value} for one in callback["inputs"]],
            "state": [{**one, "value": value} for one in callback["state"]],
            "changedPropIds": [f"{one['id']}.{one['property']}" for one in callback["inputs"]],
        }
        code, _, text = dashboard.ask(CALLBACK, method="POST", body=json.dumps(body))
        assert harmless(code, text), (output, code, text[:500])
        answered.add(code)
    # The page asks in this shape, so that what is odd comes through to the callbacks.
    assert value is not None or 200 in answered


def outputs_of(output):
    places = [place.partition("@")[0].rsplit(".", 1) for place in output.strip(".").split("...")]
    found = [{"id": place, "property": name} for place, name in places]
    return found if output.startswith("..") else found[0]


def test_callbacks_of_any_shape(dashboard, callbacks):
    choose = random.Random(SEED)
    names = ["output", "outputs", "inputs", "state", "changedPropIds", "cancelJob", "oldJob"]
    outputs = [callback["output"] for callback in callbacks]
    for _ in range(150):
        body = {name: choose.choice(ODD) for name in names if choose.random() < 0.8}
        if choose.random() < 0.5:
            body["output"] = choose.choice(outputs)
        code, _, text = dashboard.ask(CALLBACK, method="POST", body=json.dumps(body))
        assert harmless(code, text), (body, code, text[:500])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b'{"a": ' + b"9" * 100_000 + b"}", 400),
        (b'"' + b"x" * 1000, 400),
        (b"\xff" * 1000, 400),
        (b" " * 400_000, 413),
    ],
)
def test_bodies_that_are_none(dashboard, body, code):
    for path in (CALLBACK, "/campaigns/cu-pd/rerun"):
        answer = dashboard.ask(path, method="POST", body=body)
        assert answer[0] == code
        assert set(json.loads(answer[2])) == {"message"}


def test_a_body_beyond_all_measure_is_not_waited_for(dashboard):
    headers = {"Content-Length": str(10**12)}
    code, _, text = dashboard.ask(CALLBACK, method="POST", body=b"{", headers=headers)
    assert code == 413
    assert not any(word in text for word in INSIDE)


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/..%2fapp.py", "//etc/passwd",
        "/_dash-component-suites/dash/../../../etc/passwd", "/assets/%00", "/assets//etc/passwd",
        "/_dash-component-suites/hullscreen/launch/dashboard/security.py",
        "/_dash-component-suites/os/x", "/campaigns/../log", "/campaigns/%2e%2e/log?structure=1",
    ],
)  # fmt: skip
def test_paths_lead_nowhere(dashboard, path):
    code, _, text = dashboard.ask(path)
    assert code in {200, 301, 308, 400, 404}
    # The page itself is what unknown addresses show.
    assert code != 200 or "_dash-renderer" in text
    for inside in ("root:", "import ", "Traceback", "def "):
        assert inside not in text


# What a browser makes of it


@pytest.mark.browser
@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="the program chromium is not installed"
)
def test_documents_run_nothing_in_the_browser(dashboard, poisoned):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        said, dialogs = [], []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(dashboard.address)
        page.wait_for_selector("#failures button.log", timeout=30_000)
        # As text, not as part of the page.
        expect(page.locator("body")).to_contain_text("onerror=", timeout=30_000)
        page.locator("#failures button.log").first.click()
        expect(page.locator("#log-text")).to_contain_text(SCRIPT)
        expect(page.locator("#log-text")).to_contain_text(IMAGE)
        assert page.locator("img[onerror]").count() == 0
        scripts = page.locator("script").evaluate_all("all => all.map(one => one.textContent)")
        assert not any("alert" in script for script in scripts)
        # Nor would one run that somebody brought in.
        page.evaluate(BRING_IN)
        assert page.evaluate("window.broughtIn") is None
        assert any("Content Security Policy" in line for line in said)
        said.clear()
        assert dialogs == []
        assert said == []
        browser.close()
