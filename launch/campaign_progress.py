"""What the board shows of a campaign while it runs: how far it is, and what is to come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hullscreen.database.round_documents import RoundDocument, Selected
from hullscreen.launch.forecast_summary import keep_forecast, summary
from hullscreen.launch.progress import Board
from hullscreen.launch.worker_numbers import n_cores
from hullscreen.potentials.compiling import is_compiled
from hullscreen.potentials.structures import FloatArray, join
from hullscreen.workflows.campaign import Campaign
from hullscreen.workflows.dft_costs import CostModel
from hullscreen.workflows.flows import STAGE_NAMES
from hullscreen.workflows.forecast import cost_model, processes_of, workloads
from hullscreen.workflows.pool_survey import Survey, survey

# A large pool takes a while to count: the server has better things to do for so many times as long.
REST_AFTER_LOOKING = 20.0
# Costs are learnt anew so often.
COSTS_HOLD_S = 60.0


@dataclass
class CampaignProgress:
    """What the board shows of a campaign.

    Attributes
    ----------
    n_dft_workers
        Local workers that do DFT.
    """

    campaign: Campaign
    board: Board
    n_dft_workers: int
    round_seen: int = -2
    next_look: float = 0.0
    foretold: set[str] = field(default_factory=set)
    _survey: Survey | None = None
    _costs: CostModel | None = None
    _costs_from: float | None = None
    _workloads: tuple[str, FloatArray] | None = None

    @property
    def foretells(self) -> bool:
        """Whether what is to come is worth a word: an ASE calculator's time hardly ever is."""
        return self.campaign.settings.dft.engine != "ase"

    def begin(self) -> None:
        """Say what a new campaign will cost, from data at hand, and what takes a while."""
        if not is_compiled():
            self.board.note(
                "the first fit waits until the potentials' code is compiled for this machine, once "
                "and for a minute or two"
            )
        if self.campaign.store.last_round() is None:
            self._foretell("start")

    def show(self, *, now: bool = False) -> None:
        """Read the database and move the bars, if it was not done lately or has to be now."""
        began = time.monotonic()
        if now or began >= self.next_look:
            self._show()
            ended = time.monotonic()
            self.next_look = ended + REST_AFTER_LOOKING * (ended - began)

    def _show(self) -> None:
        store = self.campaign.store
        total = store.campaign()["pool"].get("total")
        last = store.last_round()
        if total is None or last is None:
            self.board.show("prototypes", store.count(), total)
            return
        if last.number != self.round_seen:
            self.round_seen = last.number
            self.board.note(self._round_sentence(last))
        for stage in (1, 2):
            # As many as the wave holds; an earlier stage had them all.
            wave = last.wave if last.stage == stage else total
            entered = store.count(stage={"$gte": stage}, order={"$lt": wave})
            if last.stage >= stage and entered:
                done = store.count(**{"relaxed.stage": {"$gte": stage}})
                self.board.show(f"{STAGE_NAMES[stage]}: structures relaxed", done, entered)
        self._show_dft(last)

    def _show_dft(self, last: RoundDocument) -> None:
        store = self.campaign.store
        selected = store.selected(round=last.number)
        if selected:
            stored = store.dft_results([chosen.key for chosen in selected])
            waiting = [chosen.key not in stored for chosen in selected]
            self.board.show(
                f"round {last.number}: DFT single points",
                len(stored),
                len(selected),
                self._labels_left_s(last, selected, waiting),
            )
            if last.number == 0 and not any(waiting):
                self._foretell("seed")
        if last.purpose == "final":
            done = store.count(stage=3, final={"$exists": True})
            total = len(last.final_indices)
            self.board.show("final: DFT relaxations", done, total, self._final_left_s(last))

    def _foretell(self, moment: str) -> None:
        """Say what the campaign will cost, once at each moment of it."""
        known = self.campaign.store.campaign().get("forecasts", {})
        if not self.foretells or moment in self.foretold or moment in known:
            return
        self.foretold.add(moment)
        if self._survey is None:
            self._survey = survey(self.campaign)
        made = keep_forecast(self.campaign, self._survey, self.n_dft_workers, moment)
        self.board.note(summary(made))

    def _labels_left_s(
        self, last: RoundDocument, selected: Sequence[Selected], waiting: Sequence[bool]
    ) -> float | None:
        """Wall time of the single points that are not there yet, s; None while it is not known."""
        model = self._cost_model()
        if model is None:
            return None
        name = f"round {last.number}"
        if self._workloads is None or self._workloads[0] != name:
            structures = join(
                (one.geometry.cell, one.geometry.positions, one.species) for one in selected
            )
            self._workloads = name, workloads(self.campaign).of(structures)
        seconds = model.seconds(self._workloads[1])
        return float(seconds[list(waiting)].sum()) / self._speed()

    def _final_left_s(self, last: RoundDocument) -> float | None:
        """Wall time of the relaxations that are not there yet, s; None while it is not known."""
        model = self._cost_model()
        if model is None:
            return None
        waiting = self.campaign.store.structures(
            {"index": {"$in": list(last.final_indices)}, "final": {"$exists": False}}
        )
        seconds = model.seconds(workloads(self.campaign).of(waiting.structures)).sum()
        return float(seconds) * model.relaxation / self._speed()

    def _cost_model(self) -> CostModel | None:
        if not self.foretells:
            return None
        now = time.monotonic()
        if self._costs_from is None or now > self._costs_from + COSTS_HOLD_S:
            self._costs, self._costs_from = cost_model(self.campaign), now
        return self._costs

    def _speed(self) -> float:
        """CPU seconds of DFT in one second."""
        return min(self.n_dft_workers * processes_of(self.campaign.settings.dft), n_cores())

    def _round_sentence(self, round_: RoundDocument) -> str:
        n_labels = len(self.campaign.store.selected(round=round_.number))
        sentence = f"round {round_.number} ({STAGE_NAMES[round_.stage]}): "
        if round_.purpose == "final":
            return f"{sentence}{len(round_.final_indices)} structures to relax with DFT"
        what = f"{n_labels} DFT single points to {round_.purpose}" if n_labels else "no new labels"
        sigma = f", σ {1e3 * round_.sigma['sigma']:.2f} meV/atom" if round_.sigma else ""
        return f"{sentence}{what}{sigma}"
