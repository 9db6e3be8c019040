"""Campaigns through a queue, on a replica set, while everything about them breaks at random.

    python tests/cluster/chaos/storm.py DIRECTORY --faults 200 --seed 0

needs Slurm (tests/cluster/slurm starts one) and prints what was done and whether all held.
"""

import argparse
import heapq
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pymongo.errors import PyMongoError

sys.path.insert(0, str(Path(__file__).parent))
from invariants import broken, history, hull_of, read_log
from replica_set import ReplicaSet

INJECTED = Path(__file__).parent / "injected"
HEARTBEAT_S = 1.0
# Longer than it takes others to notice.
STOPPED_S = (5.0, 10.0)
BETWEEN_FAULTS_S = (0.5, 3.0)
RESTART_S = (0.5, 4.0)
CUT_S = (0.0, 3.0)
# Of a campaign after the last fault: a loaded machine needs a minute or two.
PATIENCE_S = 1200.0
SETTINGS = """
[campaign]
name = "storm"
elements = ["Cu", "Pd"]
[prototypes]
max_atoms = 4
lattices = ["fcc", "bcc"]
aflow = false
[potential]
level_first = 4
level_second = 6
cutoff_angstrom = 4.5
[learning]
first_wave = 10
max_selected_per_wave = 8
[relaxation]
batch_size = 20
[dft]
calculator = "witnessed_emt:WitnessedEMT"
structures_per_job = 3
[database]
uri = "{uri}"
name = "{database}"
[launch]
queue = "slurm"
heartbeat_s = {heartbeat_s}
idle_s = 20.0
environment = {{ {environment} }}
[launch.relax]
jobs = 2
cores = 1
walltime = "00:02:00"
[launch.train]
jobs = 1
walltime = "00:02:00"
[launch.dft]
jobs = 2
walltime = "00:01:00"
"""


@dataclass
class Storm:
    """A campaign after the other, until enough has broken.

    Attributes
    ----------
    directory
        Where everything is kept.
    servers
        The replica set.
    rng
        Decides what breaks, and when.
    """

    directory: Path
    servers: ReplicaSet
    rng: random.Random
    faults: Counter = field(default_factory=Counter)
    reclaimed: int = 0
    problems: list = field(default_factory=list)
    campaigns: int = 0
    _due: list = field(default_factory=list)

    def blow(self, n_faults):
        """Break things ``n_faults`` times; every campaign that begins is brought to its end."""
        undisturbed = self._undisturbed()
        while self.faults.total() < n_faults:
            self._campaign(n_faults, undisturbed)

    def _undisturbed(self):
        """Hull and history of the same campaign run here in peace."""
        place = self._prepare("undisturbed", self.servers.uri)
        subprocess.run(
            [*_hullscreen("run"), place, "--workers", "1"],
            env=self._environment(place), check=True, capture_output=True,
        )  # fmt: skip
        with self.servers.client() as client:
            store = _store(client["undisturbed"])
            return hull_of(store), history(store)

    def _campaign(self, n_faults, undisturbed):
        name = f"campaign-{self.campaigns}"
        self.campaigns += 1
        place = self._prepare(name, self.servers.uri)
        launched = self._launch(place)
        # A busy machine takes a minute to bring the first worker, and there is little to break
        # before.
        next_fault = None
        last_fault = time.monotonic()
        while True:
            time.sleep(0.05)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            if launched.poll() is not None:
                if launched.returncode == 0 and not self._due:
                    break
                # As a person would, or the next login: it goes on.
                launched = self._launch(place)
                time.sleep(0.5)
            if next_fault is None:
                next_fault = now if _workers(place) else None
            elif now >= next_fault and self.faults.total() < n_faults:
                self._break_something(place, launched)
                last_fault = time.monotonic()
                next_fault = last_fault + self.rng.uniform(*BETWEEN_FAULTS_S)
            if now - last_fault > PATIENCE_S:
                self.problems.append(f"{name} did not end")
                launched.kill()
                return
        with self.servers.client() as client:
            database = client[name]
            events = read_log(_log_of(place))
            self.problems += [
                f"{name}: {sentence}" for sentence in broken(database, "storm", events, undisturbed)
            ]
            self.reclaimed += database.campaigns.find_one().get("n_reclaimed", 0)

    def _break_something(self, place, launched):
        """One fault of a kind that is possible just now, those of workers most often."""
        weights = {
            self._kill_worker: 4, self._stop_worker: 4, self._cancel_job: 3, self._kill_mongod: 1,
            self._step_down: 1, self._cut: 1, lambda _: self._kill(launched): 1,
        }  # fmt: skip
        while weights:
            kind = self.rng.choices(list(weights), list(weights.values()))[0]
            name = kind(place)
            if name:
                self.faults[name] += 1
                return
            del weights[kind]

    def _kill_worker(self, place):
        pid = self._some_worker(place)
        return pid and self._signal(pid, signal.SIGKILL) and "kill -9 of a worker"

    def _stop_worker(self, place):
        pid = self._some_worker(place)
        if not pid or not self._signal(pid, signal.SIGSTOP):
            return None
        self._later(STOPPED_S, lambda: self._signal(pid, signal.SIGCONT))
        return "SIGSTOP of a worker for longer than three heartbeats"

    def _cancel_job(self, place):
        del place
        words = subprocess.run(
            ["squeue", "-h", "-o", "%A"], capture_output=True, text=True, check=False
        ).stdout.split()
        if not words:
            return None
        force = ["--signal=KILL"] if self.rng.random() < 0.5 else []
        subprocess.run(["scancel", *force, self.rng.choice(words)], check=False)
        return "scancel --signal=KILL" if force else "scancel"

    def _kill_mongod(self, place):
        del place
        member = self.servers.kill_one(self.rng)
        if member is None:
            return None
        self._later(RESTART_S, member.start)
        return "kill -9 of a mongod, and its restart"

    def _step_down(self, place):
        del place
        return self.servers.step_down() and "step-down of the primary"

    def _cut(self, place):
        del place
        self.servers.cut(self.rng.uniform(*CUT_S))
        return "all connections to the servers cut"

    def _kill(self, launched):
        if launched.poll() is not None:
            return None
        launched.kill()
        launched.wait()
        return "kill -9 of hullscreen launch"

    def _later(self, span, action):
        heapq.heappush(
            self._due, (time.monotonic() + self.rng.uniform(*span), self.rng.random(), action)
        )

    def _some_worker(self, place):
        workers = _workers(place)
        return self.rng.choice(workers) if workers else None

    @staticmethod
    def _signal(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def _launch(self, place):
        with (place / "launch.log").open("ab") as log:
            return subprocess.Popen(
                [*_hullscreen("launch"), place],
                env=self._environment(place), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def _prepare(self, name, uri):
        place = self.directory / name
        place.mkdir()
        variables = {
            "PYTHONPATH": os.pathsep.join([str(INJECTED), *(path for path in sys.path if path)]),
            "HULLSCREEN_EVENT_LOG": str(_log_of(place)),
        }
        environment = ", ".join(f"{key} = {json.dumps(value)}" for key, value in variables.items())
        (place / "hullscreen.toml").write_text(
            SETTINGS.format(
                uri=uri, database=name, heartbeat_s=HEARTBEAT_S, environment=environment
            )
        )
        return place

    @staticmethod
    def _environment(place):
        path = os.pathsep.join([str(INJECTED), *(path for path in sys.path if path)])
        return {**os.environ, "PYTHONPATH": path, "HULLSCREEN_EVENT_LOG": str(_log_of(place))}


def _store(database):
    from hullscreen.database.campaign_store import CampaignStore
    from hullscreen.database.connection import Connection

    return CampaignStore(
        Connection(database=database, uri="", name=database.name, embedded=False), "storm"
    )


def _log_of(place):
    return place / "events.jsonl"


def _hullscreen(command):
    return [sys.executable, "-m", "hullscreen.launch", command]


def _workers(place):
    """Processes of `hullscreen worker` for a campaign, those that start and end others too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"worker" in words and any(str(place).encode() in word for word in words):
                found.append(int(entry.name))
    return sorted(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.directory.mkdir(parents=True)
    began = time.monotonic()
    with ReplicaSet(given.directory) as servers:
        storm = Storm(given.directory.resolve(), servers, random.Random(given.seed))
        try:
            storm.blow(given.faults)
        except PyMongoError as error:
            storm.problems.append(f"the servers could not be asked: {error}")
    print(
        f"{storm.faults.total()} faults in {storm.campaigns} campaigns, "
        f"{(time.monotonic() - began) / 60:.0f} min; {storm.reclaimed} steps reclaimed"
    )
    for kind, number in storm.faults.most_common():
        print(f"  {number:4d}  {kind}")
    for problem in storm.problems:
        print(f"BROKEN: {problem}")
    return 1 if storm.problems else 0


if __name__ == "__main__":
    sys.exit(main())
