"""Moment tensor potentials: basis, evaluation, fit, active set, relaxation, file formats.

The names below are what most programs need; each is loaded with its module when it is first used,
so that importing this package costs nothing. ``README.md`` beside this file has a worked example.

The functions `fit.fit` and `fit.errors` are called `fit_potential` and `prediction_errors` here,
because ``fit`` and ``errors`` are modules of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hullscreen.potentials.active_set import ActiveSet, select_active_set, select_candidates
    from hullscreen.potentials.almtp_files import read_almtp, write_almtp
    from hullscreen.potentials.basis import Basis, generate_basis
    from hullscreen.potentials.calculator import MTPCalculator, training_set_from_atoms
    from hullscreen.potentials.cfg_files import read_cfg, write_cfg
    from hullscreen.potentials.data_files import read_frames, write_frames
    from hullscreen.potentials.fit import FitResult, TrainingSet, Weights, best_start
    from hullscreen.potentials.fit import errors as prediction_errors
    from hullscreen.potentials.fit import fit as fit_potential
    from hullscreen.potentials.gradient_rows import GradientRows
    from hullscreen.potentials.moment_tensor_potential import (
        Evaluation,
        MomentTensorPotential,
        untrained,
    )
    from hullscreen.potentials.mtp_files import read_mtp, write_mtp
    from hullscreen.potentials.relaxation import Outcome, RelaxationLimits, Relaxed, relax
    from hullscreen.potentials.structures import Structures, from_atoms, join, to_atoms

__all__ = [
    "ActiveSet",
    "Basis",
    "Evaluation",
    "FitResult",
    "GradientRows",
    "MTPCalculator",
    "MomentTensorPotential",
    "Outcome",
    "RelaxationLimits",
    "Relaxed",
    "Structures",
    "TrainingSet",
    "Weights",
    "best_start",
    "fit_potential",
    "from_atoms",
    "generate_basis",
    "join",
    "prediction_errors",
    "read_almtp",
    "read_cfg",
    "read_frames",
    "read_mtp",
    "relax",
    "select_active_set",
    "select_candidates",
    "to_atoms",
    "training_set_from_atoms",
    "untrained",
    "write_almtp",
    "write_cfg",
    "write_frames",
    "write_mtp",
]

# Where each name lives: module, and its name there if that is another.
_HOMES = {
    "ActiveSet": "active_set",
    "Basis": "basis",
    "Evaluation": "moment_tensor_potential",
    "FitResult": "fit",
    "GradientRows": "gradient_rows",
    "MTPCalculator": "calculator",
    "MomentTensorPotential": "moment_tensor_potential",
    "Outcome": "relaxation",
    "RelaxationLimits": "relaxation",
    "Relaxed": "relaxation",
    "Structures": "structures",
    "TrainingSet": "fit",
    "Weights": "fit",
    "best_start": "fit",
    "fit_potential": "fit:fit",
    "from_atoms": "structures",
    "generate_basis": "basis",
    "join": "structures",
    "prediction_errors": "fit:errors",
    "read_almtp": "almtp_files",
    "read_cfg": "cfg_files",
    "read_frames": "data_files",
    "read_mtp": "mtp_files",
    "relax": "relaxation",
    "select_active_set": "active_set",
    "select_candidates": "active_set",
    "to_atoms": "structures",
    "training_set_from_atoms": "calculator",
    "untrained": "moment_tensor_potential",
    "write_almtp": "almtp_files",
    "write_cfg": "cfg_files",
    "write_frames": "data_files",
    "write_mtp": "mtp_files",
}


def __getattr__(name: str) -> Any:
    """Load a public name with its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, original = _HOMES[name].partition(":")
    value = getattr(import_module(f"{__name__}.{module}"), original or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
