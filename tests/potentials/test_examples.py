"""The examples of docstrings and of the README run as printed; the public names are there."""

import doctest
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import hullscreen.potentials

FOLDER = Path(__file__).parents[2] / "potentials"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
# What a user meets first has an example each.
WITH_EXAMPLES = {
    "active_set.ActiveSet",
    "active_set.select_active_set",
    "almtp_files.read_almtp",
    "basis.generate_basis",
    "calculator.MTPCalculator",
    "calculator.training_set_from_atoms",
    "fit.fit",
    "gradient_rows.GradientRows",
    "gradient_rows.energy_rows",
    "moment_tensor_potential.MomentTensorPotential",
    "moment_tensor_potential.untrained",
    "relaxation.relax",
}


def examples(module):
    """Doctests of a module's docstrings; they see the module's own names, and numpy."""
    name = f"hullscreen.potentials.{module}"
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(import_module(name), name, extraglobs={"np": np})
    return [test for test in found if test.examples]


DOCTESTS = {
    test.name.removeprefix("hullscreen.potentials."): test
    for module in MODULES
    if ">>>" in (FOLDER / f"{module}.py").read_text(encoding="utf-8")
    for test in examples(module)
}


@pytest.mark.parametrize("name", DOCTESTS)
def test_example(name):
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    result = runner.run(DOCTESTS[name], out=report.write)
    assert result.attempted > 0
    assert result.failed == 0, report.getvalue()


def test_what_a_user_meets_first_has_an_example():
    assert set(DOCTESTS) >= WITH_EXAMPLES
    assert not [name for name, test in DOCTESTS.items() if "+SKIP" in test.docstring]


# README

README = (FOLDER / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def test_the_blocks_of_the_readme_print_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    names = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), names)  # noqa: S102
        found = printed.getvalue()
        assert NUMBER.sub("#", found).split() == NUMBER.sub("#", expected).split(), code
        # Fits end a little differently on every machine and with every version of the basis.
        for ours, theirs in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
            assert float(ours) == pytest.approx(float(theirs), rel=0.5, abs=1e-3), (code, found)


def test_the_readme_names_modules_that_exist():
    named = set(re.findall(r"`(\w+\.py)`", README))
    assert named
    assert [name for name in named if not (FOLDER / name).exists()] == []


def test_the_readme_names_every_module():
    assert set(MODULES) <= {name.removesuffix(".py") for name in re.findall(r"`(\w+\.py)`", README)}


# Public names


def test_public_names_are_what_they_say():
    for name in hullscreen.potentials.__all__:
        value = getattr(hullscreen.potentials, name)
        module, _, original = hullscreen.potentials._HOMES[name].partition(":")
        home = import_module(f"hullscreen.potentials.{module}")
        assert value is getattr(home, original or name)
        assert value.__name__ == (original or name)
        assert value.__doc__
    assert set(hullscreen.potentials.__all__) == set(hullscreen.potentials._HOMES)
    assert set(hullscreen.potentials.__all__) <= set(dir(hullscreen.potentials))


def test_what_is_printed_of_an_object_is_a_line():
    from hullscreen.potentials import (
        energy_rows,
        fit_potential,
        relax,
        select_active_set,
        selection_by_configuration,
        training_set_from_atoms,
        untrained,
    )
    from hullscreen.potentials.cfg_files import from_structures
    from hullscreen.potentials.example_data import copper_gold

    start = untrained(4, ("Cu", "Au"), cutoff=4.0, min_distance=2.0)
    training = training_set_from_atoms(copper_gold(5), start.elements)
    result = fit_potential(start, training, max_iterations=2)
    active = select_active_set(energy_rows(start, training.structures))
    cells = from_structures(training.structures)
    beginnings = {
        "MomentTensorPotential(Cu-Au, 2 basis functions, 36 parameters, cutoff 4 Å)": start,
        "Structures(5 structures, 20 atoms)": training.structures,
        "TrainingSet(5 structures, 20 atoms)": training,
        "FitResult(not converged after 2 steps, loss ": result,
        "ActiveSet(36 parameters, ": active,
        "Selection(ActiveSet(36 ": selection_by_configuration(active, cells),
        "Evaluation(5 structures, 20 atoms)": start.evaluate(training.structures),
        "Relaxed(5 structures, {": relax(start, training.structures),
    }
    for beginning, value in beginnings.items():
        shown = repr(value)
        assert shown.startswith(beginning)
        assert len(shown) < 200
        assert "\n" not in shown
    with_rows = start.evaluate(training.structures, "structures")
    assert repr(with_rows).endswith(", gradients 5 x 36)")


def test_no_public_name_is_that_of_a_module():
    # Importing a module binds its name in the package: it would depend on the order of imports
    # which of the two a name means.
    assert not set(hullscreen.potentials.__all__) & set(MODULES)


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match=r"'hullscreen\.potentials' has no attribute 'train'"):
        _ = hullscreen.potentials.train


def test_importing_the_package_imports_nothing_else():
    code = "import sys, hullscreen.potentials as p; dir(p); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numba", "numpy", "scipy", "ase"}
