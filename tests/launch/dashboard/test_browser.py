"""The dashboard in Chromium, on a campaign that runs: what a person sees, and what nobody may."""

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from hullscreen.launch.atomic_files import write_atomically
from hullscreen.launch.campaign_session import open_session
from hullscreen.workflows.rerun import failed_jobs

CALCULATORS = Path(__file__).parents[1] / "calculators"
FAILING = "CuPd2"
REASON = f"the charge density of {FAILING} diverged"
SETTINGS = """
[campaign]
name = "watched"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 3
lattices = ["fcc"]
aflow = false
[potential]
level_first = 4
level_second = 4
cutoff_angstrom = 4.5
[learning]
first_wave = 10
select_grade = 10.0
break_grade = 100.0
[screening]
validation_structures = 2
[dft]
calculator = "watched_emt:WatchedEMT"
structures_per_job = 3
"""
PATIENCE_MS = 60_000
LAPTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}
GRAPHS = ("funnel", "hull", "learning", "grades", "cpu")
TABLES = ("jobs", "stable-table", "failures")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("chromium") is None, reason="the program chromium is not installed"
    ),
]


@dataclass
class Watched:
    """A campaign that runs, whose DFT holds until the pace is changed."""

    directory: Path
    failing: Path
    pace: Path
    process: subprocess.Popen
    session: object

    def state_of(self, fw_id):
        """As FireWorks calls it."""
        return self.session.connection.database.fireworks.find_one({"fw_id": fw_id})["state"]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory, launch_command, wait_for):
    """A campaign with a hull, in which one of the jobs that failed is computed once more."""
    folder = tmp_path_factory.mktemp("watched")
    directory, failing, pace = folder / "campaign", folder / "failing", folder / "pace"
    directory.mkdir()
    (directory / "hullscreen.toml").write_text(SETTINGS)
    failing.write_text(FAILING)
    pace.write_text("quick")
    log = folder / "log"

    def command(*words):
        environment = {
            "FAILING_EMT_FORMULAS": str(failing),
            "WATCHED_EMT_PACE": str(pace),
            "PYTHONPATH": os.pathsep.join([str(CALCULATORS), *filter(None, sys.path)]),
        }
        with log.open("a") as file:
            return launch_command(*words, stdout=file, stderr=file, env=environment)

    assert command("run", directory, "--workers", "1").wait() == 0, log.read_text()
    with open_session(directory) as session:
        jobs = failed_jobs(session.store)
        assert len(jobs) > 2
        assert command("rerun", directory, "--firework", jobs[0].fw_id).wait() == 0
        pace.write_text("hold")
        process = command("run", directory, "--workers", "1")
        try:
            wait_for(pace.with_suffix(".holds").exists)
            yield Watched(directory, failing, pace, process, session)
        finally:
            write_atomically(pace, "quick")
            process.terminate()
            process.wait()


@pytest.fixture(scope="module")
def dashboards(campaign, open_dashboard, tmp_path_factory):
    """One that only shows, and one that acts."""
    folder = tmp_path_factory.mktemp("dashboards")
    with (
        open_dashboard(campaign.directory, errors=folder / "shows") as shows,
        open_dashboard(campaign.directory, "--allow-actions", errors=folder / "acts") as acts,
    ):
        yield shows, acts


@pytest.fixture(scope="module")
def chromium():
    # Five seconds otherwise, which a busy machine exceeds.
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, everything that it asked for, and everything that it complained of."""

    page: object
    requests: list
    complaints: list

    def check(self, dashboard):
        """Nothing left this machine, and nothing went wrong."""
        outside = [url for url in self.requests if not url.startswith((dashboard.own, "blob:"))]
        outside = [url for url in outside if not url.startswith("data:")]
        assert outside == []
        assert self.complaints == []


@contextlib.contextmanager
def visit(chromium, dashboard, **options):
    context = chromium.new_context(viewport=LAPTOP, **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    visit = Visit(page, [], [])
    page.on("request", lambda request: visit.requests.append(request.url))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: visit.complaints.append(message.text) if message.type == "error" else None,
    )
    page.goto(dashboard.address)
    try:
        yield visit
    finally:
        context.close()


@pytest.fixture(scope="module")
def shown(chromium, dashboards):
    """The page of the dashboard that only shows, filled."""
    with visit(chromium, dashboards[0]) as shown:
        for name in GRAPHS:
            expect(shown.page.locator(f"#{name} .main-svg").first).to_be_visible()
        for name in TABLES:
            expect(shown.page.locator(f"#{name}")).not_to_be_empty(timeout=PATIENCE_MS)
        yield shown
        shown.check(dashboards[0])


def texts(page):
    return {name: page.locator(f"#{name}").inner_text() for name in (*GRAPHS, *TABLES)}


def test_the_token_leaves_the_address_bar(shown, dashboards):
    assert shown.page.url == f"{dashboards[0].own}/"
    assert dashboards[0].token not in shown.page.content()
    # Nor can a script of the page see the cookie.
    assert shown.page.evaluate("document.cookie") == ""


def test_every_panel_is_filled(shown):
    page = shown.page
    expect(page.locator("#status-line")).to_contain_text("watched")
    expect(page.locator("#status-line")).to_contain_text("failed steps run once more")
    expect(page.locator("#jobs")).to_contain_text("At work")
    expect(page.locator("#stable-table")).to_contain_text("meV/atom")
    expect(page.locator("#failures")).to_contain_text(REASON)
    seen = texts(page)
    assert "pool" in seen["funnel"]
    assert "formation energy" in seen["hull"]
    assert "(meV/atom)" in seen["hull"]
    assert "σ" in seen["learning"]
    assert "select" in seen["grades"]
    assert "training" in seen["cpu"]


def test_a_click_on_a_stable_point_shows_its_structure(shown):
    page = shown.page
    before = page.locator("#structure-title").inner_text()
    rows = page.locator("#stable-table tbody tr")
    assert rows.count() > 2
    # Elements at the ends: their points stand apart from all others.
    place = page.evaluate(POINT_OF_FIRST_ELEMENT)
    page.mouse.click(place["x"], place["y"])
    expect(page.locator("#structure-title")).not_to_have_text(before)
    expect(page.locator("#structure-title")).to_contain_text(place["formula"])
    expect(page.locator("#structure canvas").first).to_be_visible()
    expect(page.locator("#story")).to_contain_text("atoms in the cell")


# Where the stable point farthest to the left is drawn.
POINT_OF_FIRST_ELEMENT = """() => {
  const graph = document.querySelector("#hull .js-plotly-plot");
  graph.scrollIntoView({block: "center"});
  const box = graph.getBoundingClientRect(), full = graph._fullLayout;
  let best = null;
  for (const trace of graph._fullData) {
    (trace.customdata || []).forEach((index, i) => {
      if (Number.isInteger(index) && (best === null || trace.x[i] < best.at
          || (trace.x[i] === best.at && trace.y[i] < best.height))) {
        best = {at: trace.x[i], height: trace.y[i]};
      }
    });
  }
  const x = box.left + full.xaxis._offset + full.xaxis.d2p(best.at);
  const y = box.top + full.yaxis._offset + full.yaxis.d2p(best.height);
  return {x, y, formula: "Cu"};
}"""


def test_the_keyboard_reaches_a_structure_and_a_log(shown):
    page = shown.page
    row = page.locator("#stable-table button").last
    row.focus()
    formula = row.inner_text().strip()
    page.keyboard.press("Enter")
    expect(page.locator("#structure-title")).to_contain_text(formula)
    # Any structure, also one that has no row.
    page.locator("#wanted").focus()
    page.keyboard.type("0")
    page.keyboard.press("Enter")
    expect(page.locator("#structure-title")).to_contain_text("structure 0")
    page.keyboard.press("Backspace")
    page.keyboard.type("Pd")
    page.keyboard.press("Enter")
    expect(page.locator("#structure-title")).to_contain_text("Pd, structure")
    page.locator("#failures button.log").first.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    expect(page.locator("#log")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#log")).to_be_hidden()


def test_everything_is_reached_by_tabs(shown):
    page = shown.page
    page.locator("body").focus()
    reached = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(e => e.id || e.className || e.closest('section')?.className)"
                "(document.activeElement)"
            )
        )
    assert "scheme-toggle" in reached
    assert "log" in reached


def test_a_failed_job_shows_its_log(shown):
    page = shown.page
    page.locator("#failures button.log").first.click()
    expect(page.locator("#log-title")).to_contain_text("Step")
    expect(page.locator("#log-text")).to_contain_text(REASON)
    expect(page.locator("#log-text")).to_contain_text("Traceback")
    page.locator("#log-close").click()
    expect(page.locator("#log")).to_be_hidden()


def test_only_showing_there_is_no_button_and_the_server_refuses(shown, campaign):
    page = shown.page
    assert page.locator("button.rerun, button.action").count() == 0
    number = int(page.locator("#failures button.log").first.get_attribute("data-number"))
    for action, body in (("rerun", {"firework": number}), ("pause", {}), ("resume", {})):
        asked = page.request.post(
            f"{page.url}campaigns/watched/{action}",
            data=json.dumps(body),
            headers={"Content-Type": "application/json", "Origin": page.url.rstrip("/")},
        )
        assert asked.status == 403
        assert "--allow-actions" in asked.json()["message"]
    assert campaign.state_of(number) == "FIZZLED"
    assert not campaign.session.store.campaign().get("paused")


def test_where_it_is_allowed_a_job_runs_again(chromium, dashboards, campaign):
    with visit(chromium, dashboards[1]) as acting:
        page = acting.page
        button = page.locator("#failures button.rerun").first
        number = int(button.get_attribute("data-number"))
        button.click()
        expect(page.locator("#log-text")).to_contain_text(
            f"Ready to run once more: {number}", timeout=PATIENCE_MS
        )
        assert campaign.state_of(number) == "READY"
        acting.check(dashboards[1])


def test_where_it_is_allowed_a_campaign_pauses_and_goes_on(
    chromium, open_dashboard, small_campaign, copied_campaign, mongo, tmp_path
):
    copied_campaign.set_campaign(finished=False)
    text = (small_campaign.directory / "hullscreen.toml").read_text()
    (tmp_path / "hullscreen.toml").write_text(
        re.sub(r'(?m)^name = "test_.*"', f'name = "{mongo.name}"', text)
    )
    with (
        open_dashboard(tmp_path, "--allow-actions", errors=tmp_path / "errors") as dashboard,
        visit(chromium, dashboard) as acting,
    ):
        page = acting.page
        expect(page.locator("#report-link[href]")).to_be_attached()
        for action, sentence, paused in (("pause", "Paused", True), ("resume", "Resumed", False)):
            page.locator(f"button.action[data-action={action}]").click()
            expect(page.locator("#log-text")).to_contain_text(sentence)
            assert bool(copied_campaign.campaign().get("paused")) is paused
            page.locator("#log-close").click()
        acting.check(dashboard)


NO_WIDER_THAN_THE_SCREEN = (
    "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
)


def test_no_horizontal_scroll_on_a_phone(chromium, dashboards, wait_for):
    with visit(chromium, dashboards[0], has_touch=True) as small:
        page = small.page
        page.set_viewport_size(PHONE)
        expect(page.locator("#hull .main-svg").first).to_be_visible()
        expect(page.locator("#failures button.log").first).to_be_attached()
        # Plotly follows the width a moment later.
        wait_for(lambda: page.evaluate(NO_WIDER_THAN_THE_SCREEN))
        small.check(dashboards[0])


def test_the_dark_scheme_is_dark(chromium, dashboards):
    backgrounds = {}
    for scheme in ("light", "dark"):
        with visit(chromium, dashboards[0], color_scheme=scheme) as seen:
            expect(seen.page.locator("#hull .main-svg").first).to_be_visible()
            colour = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
            backgrounds[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
            seen.page.locator("#scheme-toggle").click()
            expect(seen.page.locator("body")).not_to_have_css("background-color", colour)
            seen.check(dashboards[0])
    assert backgrounds["dark"] < 64
    assert backgrounds["light"] > 192


# Strangers


@pytest.fixture(scope="module")
def other_page():
    """A page of another port of this machine, which shares the cookies of all ports."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>other</title>")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_nobody_gets_in_without_the_token(chromium, dashboards):
    context = chromium.new_context()
    page = context.new_page()
    for path in ("/", "/_dash-layout", "/assets/page.js", "/campaigns/watched/log?structure=0"):
        assert page.goto(f"{dashboards[0].own}{path}").status == 401
    assert page.goto(f"{dashboards[0].own}/?token=wrong").status == 401
    context.close()


def statuses_seen_by(page):
    """Function: status of every answer by method and address, also of those no page may see."""
    asked, statuses = {}, {}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on(
        "Network.requestWillBeSent",
        lambda event: asked.update(
            {event["requestId"]: (event["request"]["method"], event["request"]["url"])}
        ),
    )
    session.on(
        "Network.responseReceivedExtraInfo",
        lambda event: statuses.update({event["requestId"]: event["statusCode"]}),
    )
    # An answer may be told of before its question.
    return lambda: {asked.get(number): status for number, status in statuses.items()}


def test_another_page_gets_nothing_and_does_nothing(
    chromium, dashboards, other_page, campaign, wait_for
):
    acts = dashboards[1]
    log, pause = (f"{acts.own}/campaigns/watched/{what}" for what in ("log?structure=0", "pause"))
    with visit(chromium, acts) as visited:
        page = visited.page.context.new_page()
        page.goto(other_page)
        statuses = statuses_seen_by(page)
        assert page.evaluate(FETCH, [log, {}]) == "refused"
        for number, mode in enumerate(("cors", "no-cors")):
            sent = {"method": "POST", "mode": mode, "body": "{}"}
            assert page.evaluate(FETCH, [f"{pause}?{number}", sent]) == "refused"
        # Of this it first asks leave.
        sent |= {"mode": "cors", "headers": {"Content-Type": "application/json"}}
        assert page.evaluate(FETCH, [f"{pause}?json", sent]) == "refused"
        with page.expect_navigation():
            page.evaluate(FORM, f"{pause}?form")
        page.goto(other_page)
        page.evaluate(FRAME, f"{acts.own}/?frame")
        refused = [
            ("GET", log),
            *(("POST", f"{pause}?{which}") for which in ("0", "1", "form")),
            ("GET", f"{acts.own}/?frame"),
        ]
        # Events come in while the page is asked for something.
        wait_for(lambda: page.evaluate("true") and statuses().keys() >= {*refused})
        assert {one: statuses()[one] for one in refused} == dict.fromkeys(refused, 403)
    assert not campaign.session.store.campaign().get("paused")


FETCH = """([url, options]) => fetch(url, {credentials: "include", ...options})
  .then(answer => answer.text(), error => "refused")"""
FORM = """url => {
  const form = document.createElement("form");
  form.method = "POST"; form.action = url; form.enctype = "text/plain";
  document.body.append(form); form.submit();
}"""
FRAME = """url => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.onload = done; frame.src = url; document.body.append(frame);
})"""


def test_a_form_in_a_page_of_its_own_is_refused_too(shown, dashboards):
    for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
        answer = shown.page.request.post(
            f"{dashboards[0].own}/campaigns/watched/pause",
            data="{}",
            headers={"Content-Type": kind, "Origin": dashboards[0].own},
        )
        assert answer.status == 415


# The end: nothing waits any more, so it comes last.


def test_the_panels_follow_the_campaign(shown, campaign):
    page = shown.page
    before = texts(page)
    campaign.failing.write_text("")
    write_atomically(campaign.pace, "quick")
    expect(page.locator("#status-line")).to_contain_text(": finished.", timeout=60_000)
    expect(page.locator("#jobs")).not_to_have_text(before["jobs"])
    expect(page.locator("#cpu")).not_to_have_text(before["cpu"])
    assert campaign.process.wait(timeout=60) == 0
