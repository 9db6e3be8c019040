"""What a dashboard with viewers costs the campaign that it shows, and how long its page takes.

python tests/benchmarks/dashboard_costs.py FOLDER --max-atoms 9 --pairs 2

Runs the same campaign alone and watched by turns (alone, watched, watched, alone, …), each from
nothing, with EMT for DFT, and prints wall times, processor times and their ratio; what a refresh of
each viewer took and weighed; and the first paint in Chromium with an empty cache.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ELEMENTS = ["Cu", "Ni", "Pt"]
VIEWERS = 10
# As the page does.
REFRESH_S = 2.0
# In which the campaign's database comes up, and a page is painted.
PATIENCE_S = 120.0
CALLBACK = "/_dash-update-component"


def hullscreen(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """A command of hullscreen in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "hullscreen.launch", *arguments], text=True, **options
    )


@dataclass
class Viewer:
    """One browser's questions, again and again, over one connection.

    Attributes
    ----------
    took_s, n_bytes
        Of each answer to a refresh.
    """

    port: int
    cookie: str
    took_s: list[float] = field(default_factory=list)
    n_bytes: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def ask(self, path: str, body: Any = None) -> bytes:
        """The text of an answer."""
        headers = {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as asked:
            if body is None:
                asked.request("GET", path, headers=headers)
            else:
                headers["Content-Type"] = "application/json"
                asked.request("POST", path, body=json.dumps(body), headers=headers)
            answer = asked.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise SystemExit(f"{path} was answered with {answer.status}: {text[:200]!r}")
            return text

    def look_on(self) -> None:
        """Ask as the page does: everything once, and then what has changed."""
        question = refresh_question(json.loads(self.ask("/_dash-dependencies")))
        seen: Any = {}
        while not self.ended.is_set():
            for one in question["state"]:
                one["value"] = seen
            began = time.perf_counter()
            text = self.ask(CALLBACK, question)
            self.took_s.append(time.perf_counter() - began)
            self.n_bytes.append(len(text))
            # Absent where nothing has changed.
            seen = json.loads(text)["response"].get("seen", {}).get("data", seen)
            self.ended.wait(REFRESH_S)


def refresh_question(dependencies: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page asks every two seconds, as it says itself."""
    (refresh,) = [one for one in dependencies if "status-line.children" in one["output"]]
    places = [place.rsplit(".", 1) for place in refresh["output"].strip(".").split("...")]
    return {
        "output": refresh["output"],
        "outputs": [{"id": place, "property": name} for place, name in places],
        "inputs": [{**one, "value": None} for one in refresh["inputs"]],
        "state": [{**one, "value": {}} for one in refresh["state"]],
        "changedPropIds": ["tick.n_intervals"],
    }


def prepared(directory: Path, max_atoms: int) -> Path:
    """A campaign that has not begun."""
    if directory.exists():
        raise SystemExit(f"{directory} exists already: choose another folder")
    words = ["init", str(directory), "--elements", *ELEMENTS, "--max-atoms", str(max_atoms)]
    if hullscreen(*words).wait():
        raise SystemExit("init failed")
    settings = directory / "hullscreen.toml"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("aflow = true", "aflow = false"), encoding="utf-8")
    return directory


def children_cpu_s() -> float:
    """Processor time of processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(directory: Path, *, viewers: int) -> dict[str, Any]:
    """Run a campaign, watched or not: seconds, processor seconds, and what viewers saw."""
    began, spent = time.perf_counter(), children_cpu_s()
    campaign = hullscreen("run", str(directory), stderr=subprocess.DEVNULL)
    found: dict[str, Any] = {}
    if viewers:
        found = watched(directory, campaign, viewers)
    if campaign.wait():
        raise SystemExit(f"the campaign in {directory} failed")
    # The page is painted after the campaign has ended.
    wall_s = found.pop("ended_at", time.perf_counter()) - began
    report = json.loads(
        subprocess.run(
            [sys.executable, "-m", "hullscreen.launch", "report", str(directory), "--json"],
            check=True, capture_output=True, text=True,
        ).stdout
    )  # fmt: skip
    return {
        "viewers": viewers,
        "wall_s": wall_s,
        # As the campaign accounts it: its workers and its server, which answers the dashboard too.
        "campaign_cpu_s": report["cpu_seconds"]["total"],
        "all_processes_cpu_s": children_cpu_s() - spent,
        "structures": report["funnel"]["prototypes"]["total"],
        **found,
    }


def watched(directory: Path, campaign: subprocess.Popen[str], viewers: int) -> dict[str, Any]:
    """Look at a campaign until it ends, and at the end into its page with Chromium."""
    dashboard, address = opened(directory)
    try:
        port, cookie = logged_in(address)
        looking = [Viewer(port, cookie) for _ in range(viewers)]
        threads = [threading.Thread(target=one.look_on) for one in looking]
        for thread in threads:
            thread.start()
        campaign.wait()
        ended_at = time.perf_counter()
        for one in looking:
            one.ended.set()
        for thread in threads:
            thread.join()
        cpu_s = processor_s(dashboard.pid)
        painted = [first_paint_s(address) for _ in range(3)] if shutil.which("chromium") else []
    finally:
        dashboard.terminate()
        dashboard.wait()
    took = [seconds for one in looking for seconds in one.took_s]
    n_bytes = [number for one in looking for number in one.n_bytes]
    return {
        "ended_at": ended_at,
        "refreshes": len(took),
        "refresh_median_s": statistics.median(took),
        "refresh_max_s": max(took),
        "refresh_median_bytes": statistics.median(n_bytes),
        "refresh_max_bytes": max(n_bytes),
        "dashboard_cpu_s": cpu_s,
        "first_paint_s": [first for first, _ in painted],
        "hull_drawn_s": [drawn for _, drawn in painted],
    }


def opened(directory: Path) -> tuple[subprocess.Popen[str], str]:
    """A dashboard of a campaign, as soon as that has begun, and its address."""
    deadline = time.monotonic() + PATIENCE_S
    while not (directory / "database" / "data").is_dir():
        time.sleep(0.1)
    while time.monotonic() < deadline:
        dashboard = hullscreen(
            "dashboard", str(directory), "--no-browser",
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert dashboard.stdout is not None
        address = re.search(r"http://\S+", dashboard.stdout.readline())
        if address:
            return dashboard, address[0]
        dashboard.wait()
    raise SystemExit(f"the campaign in {directory} did not begin")


def logged_in(address: str) -> tuple[int, str]:
    """Port and cookie of a dashboard."""
    host, _, path = address.removeprefix("http://").partition("/")
    port = int(host.partition(":")[2])
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as asked:
        asked.request("GET", f"/{path}")
        cookie = asked.getresponse().headers["Set-Cookie"].partition(";")[0]
    return port, cookie


def processor_s(pid: int) -> float:
    """Processor time of a process that lives."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def first_paint_s(address: str) -> tuple[float, float]:
    """Seconds from the visit, with an empty cache: until there is something, and until the hull."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("#hull .main-svg", timeout=1000 * PATIENCE_S)
        drawn = time.perf_counter() - began
        first = page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
        )
        browser.close()
    return 1e-3 * first, drawn


def main() -> None:
    """Run pairs of campaigns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-atoms", type=int, required=True)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--viewers", type=int, default=VIEWERS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(2 * given.pairs):
        # Alone, watched, watched, alone: what drifts meanwhile falls on both.
        viewers = given.viewers if number % 4 in {1, 2} else 0
        name = f"{number}-{'watched' if viewers else 'alone'}"
        found.append(run(prepared(given.folder / name, given.max_atoms), viewers=viewers))
        print(json.dumps(found[-1]), flush=True)
    for field_name in ("wall_s", "campaign_cpu_s"):
        alone, seen = (
            statistics.mean(one[field_name] for one in found if bool(one["viewers"]) == is_watched)
            for is_watched in (False, True)
        )
        print(f"{field_name}: alone {alone:.1f}, watched {seen:.1f}, ratio {seen / alone:.3f}")


if __name__ == "__main__":
    main()
