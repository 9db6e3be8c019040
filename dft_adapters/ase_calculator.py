"""Making an ASE calculator from its import path, and telling one from another."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hullscreen.dft_adapters.engine import EngineMissingError

# Calculators are anybody's code: whatever one raises means that this structure has no result. Codes
# that are commands at heart even leave through SystemExit.
CALCULATOR_ERRORS = (Exception, SystemExit)
NEEDED = ("energy", "forces", "stress")


def load_calculator(path: str, arguments: Mapping[str, Any]) -> Any:
    """Instance of the calculator class at ``"module:Class"``.

    Raises
    ------
    EngineMissingError
        The module cannot be imported, has no such class, or the class refuses the arguments.
    """
    module_name, class_name = path.split(":")
    module = _module_of(path)
    calculator_class = getattr(module, class_name, None)
    if not callable(calculator_class):
        raise EngineMissingError(
            "missing_calculator", f"the module {module_name!r} has no calculator {class_name!r}"
        )
    try:
        calculator = calculator_class(**arguments)
    except CALCULATOR_ERRORS as error:
        raise EngineMissingError(
            "wrong_arguments",
            f"the ASE calculator {path!r} does not accept the arguments "
            f"{dict(arguments)!r}: {first_line(error)}",
        ) from error
    _refuse_ignored_arguments(calculator, path, arguments)
    offered = getattr(calculator, "implemented_properties", ())
    lacking = [name for name in NEEDED if name not in offered]
    if lacking:
        raise EngineMissingError(
            "missing_property",
            f"the ASE calculator {path!r} does not compute {' and '.join(lacking)}, which "
            "relaxing cells and training need; choose another",
        )
    return calculator


def _module_of(path: str) -> ModuleType:
    module_name = path.partition(":")[0]
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise EngineMissingError(
            "missing_calculator",
            f"the ASE calculator {path!r} cannot be imported ({error}); "
            f"install the package that provides {module_name.split('.')[0]!r} here",
        ) from error


def _refuse_ignored_arguments(calculator: Any, path: str, arguments: Mapping[str, Any]) -> None:
    """ASE's base class stores any keyword; one that means nothing would be a silent misspelling."""
    from ase.calculators.calculator import Calculator, FileIOCalculator

    defaults = getattr(calculator, "default_parameters", None)
    if not isinstance(calculator, Calculator) or isinstance(calculator, FileIOCalculator):
        return
    if not defaults:
        return
    named: set[str] = set(defaults)
    for initialiser in (type(calculator).__init__, Calculator.__init__):
        named.update(inspect.signature(initialiser).parameters)
    unknown = sorted(set(arguments) - named)
    if unknown:
        raise EngineMissingError(
            "wrong_arguments",
            f"the ASE calculator {path!r} has no argument {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(repr, sorted(defaults)))}",
        )


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def argument_content(value: Any) -> Any:
    """A file named by an argument counts by what it holds."""
    if isinstance(value, (str, Path)) and value and Path(value).is_file():
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()
    return value


def package_version(path: str) -> str:
    """Version of the package that provides ``"module:Class"``, or a hash of the module's source.

    Raises
    ------
    EngineMissingError
        No package tells its version, and the module cannot be imported.
    """
    top = re.split(r"[.:]", path, maxsplit=1)[0]
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = _distributions().get(top)
    if names:
        return importlib.metadata.version(names[0])
    module = _module_of(path)
    source = getattr(module, "__file__", None)
    if source is None:
        return str(getattr(module, "__version__", ""))
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Installed packages by the modules that they provide; looking through all takes a while."""
    return importlib.metadata.packages_distributions()
