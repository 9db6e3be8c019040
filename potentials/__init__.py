"""Moment tensor potentials: basis, evaluation, fit, active set, relaxation, file formats.

The names below are what most programs need; each is loaded with its module when it is first used,
so that importing this package costs nothing. ``README.md`` beside this file has a worked example.

The functions `fit.fit` and `labels.errors` are called `fit_potential` and `prediction_errors` here,
because ``fit`` and ``errors`` are modules of this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hullscreen.potentials.active_set import ActiveSet, select_active_set, select_candidates
    from hullscreen.potentials.almtp_files import (
        Selection,
        read_almtp,
        selection_by_configuration,
        write_almtp,
    )
    from hullscreen.potentials.basis import Basis, generate_basis
    from hullscreen.potentials.calculator import MTPCalculator, training_set_from_atoms
    from hullscreen.potentials.cfg_files import Configuration, read_cfg, write_cfg
    from hullscreen.potentials.data_files import read_frames, read_potential, write_frames
    from hullscreen.potentials.errors import (
        FileFormatError,
        HullscreenError,
        InputError,
        PotentialError,
    )
    from hullscreen.potentials.fit import FitResult, best_start
    from hullscreen.potentials.fit import fit as fit_potential
    from hullscreen.potentials.gradient_rows import GradientRows, energy_rows
    from hullscreen.potentials.labels import TrainingSet, errors_by_group
    from hullscreen.potentials.labels import errors as prediction_errors
    from hullscreen.potentials.least_squares import Weights
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
    "Configuration",
    "Evaluation",
    "FileFormatError",
    "FitResult",
    "GradientRows",
    "HullscreenError",
    "InputError",
    "MTPCalculator",
    "MomentTensorPotential",
    "Outcome",
    "PotentialError",
    "RelaxationLimits",
    "Relaxed",
    "Selection",
    "Structures",
    "TrainingSet",
    "Weights",
    "best_start",
    "energy_rows",
    "errors_by_group",
    "fit_potential",
    "from_atoms",
    "generate_basis",
    "join",
    "prediction_errors",
    "read_almtp",
    "read_cfg",
    "read_frames",
    "read_mtp",
    "read_potential",
    "relax",
    "select_active_set",
    "select_candidates",
    "selection_by_configuration",
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
    "Configuration": "cfg_files",
    "Evaluation": "moment_tensor_potential",
    "FileFormatError": "errors",
    "FitResult": "fit",
    "GradientRows": "gradient_rows",
    "HullscreenError": "errors",
    "InputError": "errors",
    "MTPCalculator": "calculator",
    "MomentTensorPotential": "moment_tensor_potential",
    "Outcome": "relaxation",
    "PotentialError": "errors",
    "RelaxationLimits": "relaxation",
    "Relaxed": "relaxation",
    "Selection": "almtp_files",
    "Structures": "structures",
    "TrainingSet": "labels",
    "Weights": "least_squares",
    "best_start": "fit",
    "energy_rows": "gradient_rows",
    "errors_by_group": "labels",
    "fit_potential": "fit:fit",
    "from_atoms": "structures",
    "generate_basis": "basis",
    "join": "structures",
    "prediction_errors": "labels:errors",
    "read_almtp": "almtp_files",
    "read_cfg": "cfg_files",
    "read_frames": "data_files",
    "read_mtp": "mtp_files",
    "read_potential": "data_files",
    "relax": "relaxation",
    "select_active_set": "active_set",
    "select_candidates": "active_set",
    "selection_by_configuration": "almtp_files",
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
