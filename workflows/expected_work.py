"""How many DFT calculations a campaign will ask for, and what the rest of it takes.

Numbers of the seed and of the validation follow from the settings. The others follow those of 19
finished campaigns with EMT as DFT: two to four elements, 66 to 400,653 structures, potentials of
levels 6 to 10 and 10 to 16. The ranges hold what these have asked for, and no more is known.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Self

from hullscreen.workflows.screening import USUAL_SAMPLE, sample_size
from hullscreen.workflows.settings_tree import Screening

SMALL_POOL = 66
# Labels for learning: of the first potential's parameters this share for a small pool, and this
# much more with each factor e of its size; of the second potential's parameters a fixed share.
LEARNT_SHARE, LEARNT_GROWTH, LEARNT_SECOND = 0.80, 0.23, 0.15
LEARNING_RANGE = (0.6, 1.5)
# σ is measured on structures that converged: hardly fewer than all.
CONVERGED_RANGE = (0.9, 1.0)
# The first refinement takes a sample, but not more than there are basins; large pools need more.
STRUCTURES_OF_A_BASIN = 6
USUAL_POOL, REFINED_POWER = 1000, 0.37
REFINED_RANGE = (0.45, 2.0)
FINAL_OF_SMALL_POOL, FINAL_POWER = 7.0, 0.22
FINAL_RANGE = (0.5, 2.5)
# Rounds that label something: they are done one after another.
LEARNING_ROUNDS, LEARNING_ROUNDS_GROWTH = 4.0, 2.3
# Processor time of everything but DFT, on one core of a virtual Intel Xeon: per structure, and per
# label and parameter of the second potential.
SECONDS_OF_A_STRUCTURE, SECONDS_OF_A_LABEL = 1.3e-3, 3e-4
POTENTIAL_RANGE = (0.4, 2.5)


@dataclass(frozen=True)
class Estimate:
    """A number that is not known yet.

    Attributes
    ----------
    low, expected, high
        What it will hardly be below, what it will be near, what it will hardly exceed.
    """

    low: float
    expected: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Self:
        """A number that is known."""
        return cls(value, value, value)

    @classmethod
    def around(cls, expected: float, factors: tuple[float, float]) -> Self:
        """A number within a range given by two factors."""
        return cls(factors[0] * expected, expected, factors[1] * expected)

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.low + other.low, self.expected + other.expected, self.high + other.high
        )

    def times(self, low: float, expected: float, high: float) -> Estimate:
        """A product with another number that is not known."""
        return Estimate(self.low * low, self.expected * expected, self.high * high)

    def at_least(self, value: float) -> Estimate:
        """The same, knowing that it is not smaller than this."""
        return Estimate(max(self.low, value), max(self.expected, value), max(self.high, value))

    def whole(self) -> Estimate:
        """Rounded to whole numbers."""
        return Estimate(round(self.low), round(self.expected), round(self.high))

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def expected_calculations(
    n_structures: int,
    n_elements: int,
    n_seed: int,
    n_parameters: tuple[int, int],
    screening: Screening,
) -> dict[str, Estimate]:
    """Single points by purpose, and under ``final`` the relaxations.

    Parameters
    ----------
    n_structures, n_elements
        Of the pool.
    n_seed
        Labels of the seed.
    n_parameters
        Of the first and of the second potential.
    screening
        How σ is measured.
    """
    growth = max(math.log(max(n_structures, 1) / SMALL_POOL), 0.0)
    first = n_parameters[0] * (LEARNT_SHARE + LEARNT_GROWTH * growth)
    learn = first + LEARNT_SECOND * n_parameters[1]
    validate = sample_size(n_structures, screening.validation_structures)
    sample = screening.validation_structures or USUAL_SAMPLE
    refine = min(sample, max(n_structures / STRUCTURES_OF_A_BASIN, 1.0))
    refine *= max((n_structures / USUAL_POOL) ** REFINED_POWER, 1.0)
    final = FINAL_OF_SMALL_POOL * math.sqrt(n_elements - 1) * math.exp(FINAL_POWER * growth)
    return {
        "seed": Estimate.exactly(n_seed),
        "learn": Estimate.around(learn, LEARNING_RANGE).whole(),
        "validate": Estimate.around(validate, CONVERGED_RANGE).whole(),
        "refine": Estimate.around(refine, REFINED_RANGE).whole(),
        "final": Estimate.around(final, FINAL_RANGE).at_least(n_elements).whole(),
    }


def labelling_rounds(n_structures: int) -> dict[str, float]:
    """Rounds of each purpose that ask for DFT; what one asks for can be computed at once."""
    growth = max(math.log(max(n_structures, 1) / SMALL_POOL), 0.0)
    learn = LEARNING_ROUNDS + LEARNING_ROUNDS_GROWTH * growth
    return {"seed": 1.0, "learn": learn, "validate": 1.0, "refine": 2.0, "final": 1.0}


def potential_seconds(n_structures: int, n_labels: Estimate, n_parameters: int) -> Estimate:
    """Processor time of everything but DFT, s; ``n_parameters`` of the second potential."""
    labels = SECONDS_OF_A_LABEL * n_parameters * n_labels.expected
    return Estimate.around(SECONDS_OF_A_STRUCTURE * n_structures + labels, POTENTIAL_RANGE)
