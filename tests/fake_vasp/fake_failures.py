"""How the fake VASP fails, and what cures it: what custodian's handlers set.

FAKE_VASP_FAILURES names a JSON file: a list of rules ``{"kind": "edddav"}``, tried in order. A rule
may be limited to a ``formula`` ("Cu2Pd", elements in alphabetical order), to runs that relax
(``"relax": true``) or do not, to the ``numbers`` of runs (counted over all folders, each new folder
once) and to a number of ``times``. Counts are kept beside the file, under a lock.
"""

import fcntl
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from fake_inputs import read_inputs

NUMBER_FILE = "fake_vasp.number"


@dataclass(frozen=True)
class Kind:
    """A way to fail.

    ``place``: start, scf, ionic or end. ``says``: on standard output, ``complains``: on standard
    error. ``cured``: whether this INCAR (and grid) does without it. ``status``: exit status.
    ``steps``: ionic steps before it.
    """

    place: str
    says: str = ""
    complains: str = ""
    cured: object = None
    status: int = 1
    steps: int = 1


def algo(tags):
    return str(tags.get("ALGO", "Normal"))[:1].upper()


KINDS = {
    "edddav": Kind(
        "scf", " Error EDDDAV: Call to ZHEGV failed. Returncode =   7 1   8",
        cured=lambda tags, _: algo(tags) == "A",
    ),
    "eddrmm": Kind(
        "scf", " WARNING in EDDRMM: call to ZHEGV failed, returncode =   6  3      9",
        cured=lambda tags, _: algo(tags) == "N",
    ),
    "brmix": Kind(
        "scf", " BRMIX: very serious problems\n the old and the new charge density differ",
        cured=lambda tags, _: tags.get("IMIX") == 1,
    ),
    # Only another grid helps: the result is not of the campaign's settings.
    "brmix_of_the_grid": Kind(
        "scf", " BRMIX: very serious problems\n the old and the new charge density differ",
        cured=lambda _, style: style != "Gamma",
    ),
    "zbrent": Kind(
        "ionic", " ZBRENT: fatal error in bracketing\n     please rerun with smaller EDIFF, or copy"
        " CONTCAR\n     to POSCAR and continue", steps=2,
        cured=lambda tags, _: tags.get("NELMIN", 2) >= 8,
    ),
    "brions": Kind(
        "ionic", " BRIONS problems: POTIM should be increased",
        cured=lambda tags, _: tags.get("POTIM", 0.5) > 0.5,
    ),
    "pricel": Kind(
        "start", " internal error in subroutine PRICEL (probably precision problem, try to change "
        "SYMPREC in INCAR ?)", cured=lambda tags, _: tags.get("SYMPREC", 1e-5) <= 1e-8,
    ),
    "inv_rot_mat": Kind(
        "start", " VERY BAD NEWS! internal error in subroutine INVGRP:\n inverse of rotation matrix"
        " was not found (increase SYMPREC)       5",
        cured=lambda tags, _: tags.get("SYMPREC", 1e-5) > 5e-5,
    ),
    "posmap": Kind(
        "start", " POSMAP internal error: symmetry equivalent atom not found,",
        cured=lambda tags, _: tags.get("SYMPREC", 1e-5) < 5e-6,
    ),
    "too_few_bands": Kind(
        "scf", " TOO FEW BANDS!!", cured=lambda tags, _: "NBANDS" in tags,
    ),
    "rspher": Kind(
        "start", " ERROR RSPHER: internal error",
        cured=lambda tags, _: not tags.get("LREAL", False),
    ),
    "unconverged": Kind("never", cured=lambda tags, _: algo(tags) != "F"),
    "hopeless_scf": Kind("never", cured=lambda *_: False),
    "potim": Kind("never", cured=lambda tags, _: tags.get("POTIM", 0.5) < 0.5),
    "positive_energy": Kind("never", cured=lambda tags, _: algo(tags) == "N"),
    "nan": Kind("never", cured=lambda *_: False),
    "frozen": Kind("start", cured=lambda tags, _: algo(tags) == "N"),
    "slow": Kind("ionic", cured=lambda *_: False),
    "slow_scf": Kind("scf", cured=lambda *_: False),
    "killed": Kind("ionic", cured=lambda *_: False),
    "truncated": Kind("end", cured=lambda *_: False),
    "half_contcar": Kind("ionic", cured=lambda *_: False, steps=2),
    "segfault": Kind(
        "scf", complains="forrtl: severe (174): SIGSEGV, segmentation fault occurred\nImage     PC",
        status=174, cured=lambda *_: False,
    ),
    "silent": Kind("scf", cured=lambda *_: False, status=3),
    "disk_full": Kind(
        "ionic", status=38,
        complains="forrtl: No space left on device\nforrtl: severe (38): error during write",
        cured=lambda *_: False,
    ),
    "bad_incar": Kind(
        "start", " Error reading item 'EDIFF' from file INCAR.", cured=lambda *_: False
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """The failure of this run.

    ``seconds``: how long a slow step takes.
    """

    kind: str
    seconds: float = 0.0

    def happen(self, place, vasp):
        """Fail, if this is the place and the time."""
        from fake_run import EndError

        row = KINDS[self.kind]
        if place != row.place or (place == "ionic" and vasp.out.n_ionic < row.steps):
            return
        if self.kind in {"slow", "slow_scf"}:
            time.sleep(self.seconds)
        elif self.kind == "frozen":
            while True:
                time.sleep(1.0)
        elif self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "truncated":
            path = Path("vasprun.xml")
            path.write_text(path.read_text()[: path.stat().st_size // 2])
        elif self.kind == "half_contcar":
            path = Path("CONTCAR")
            text = path.read_text()
            path.write_text(text[: text.index("Direct") + 30])
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            if row.says:
                vasp.out.say(row.says)
            if row.complains:
                vasp.out.complain(row.complains)
            raise EndError(row.status)

    def energy(self, energy, vasp):
        """What the self-consistency loop comes to."""
        if self.kind == "nan":
            return float("nan")
        if self.kind == "positive_energy":
            return abs(energy)
        if self.kind == "potim":
            return energy + 1.2 * len(vasp.inputs.symbols) * min(vasp.out.n_ionic, 1)
        return energy

    def never_converges(self, _vasp):
        return self.kind in {"unconverged", "hopeless_scf"}


def chosen_failure():
    """The failure that the plan has for this run, if any."""
    plan = os.environ.get("FAKE_VASP_FAILURES")
    if not plan:
        return None
    path = Path(plan)
    with path.with_suffix(".counts").open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        text = stream.read()
        counts = json.loads(text) if text else {"runs": 0}
        failure = choose(json.loads(path.read_text()), counts)
        stream.seek(0)
        stream.truncate()
        json.dump(counts, stream)
    return failure


def choose(rules, counts):
    """First rule that fits this run; ``counts`` is changed."""
    own = Path(NUMBER_FILE)
    if not own.is_file():
        counts["runs"] += 1
        own.write_text(str(counts["runs"]))
    number = int(own.read_text())
    inputs = read_inputs()
    relaxes = inputs.tag("NSW") > 0
    for index, rule in enumerate(rules):
        done = counts.get(str(index), 0)
        fits = (
            rule.get("formula") in (None, inputs.formula)
            and rule.get("relax") in (None, relaxes)
            and ("numbers" not in rule or number in rule["numbers"])
            and done < rule.get("times", done + 1)
            and not KINDS[rule["kind"]].cured(inputs.incar, inputs.style)
        )
        if fits:
            counts[str(index)] = done + 1
            counts.setdefault("happened", []).append(rule["kind"])
            return Failure(rule["kind"], rule.get("seconds", 0.0))
    return None
