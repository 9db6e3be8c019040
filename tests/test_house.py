"""The house stands: who imports whom, what is packaged, what help costs, what is documented."""

import ast
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from hullscreen.launch.command_line import COMMANDS, EXIT_CODES
from hullscreen.launch.settings_template import markdown_table

ROOT = Path(__file__).parents[1]

# Each folder, and the folders it may import from.
MAY_IMPORT = {
    "potentials": set(),
    "dft_adapters": set(),
    "database": set(),
    "workflows": {"potentials", "dft_adapters", "database"},
    "launch": {"potentials", "dft_adapters", "database", "workflows"},
}
# What everyone may import, because it holds no behaviour of its own.
SHARED = {"hullscreen.potentials.errors", "hullscreen.potentials.structures"}
# Packages that only some folders may talk to.
ONLY_IN = {
    "pymongo": {"database"},
    "bson": {"database"},
    "gridfs": {"database"},
    "fireworks": {"workflows", "launch"},
    "click": {"launch"},
    "rich": {"launch"},
    "dash": {"launch"},
    "flask": {"launch"},
    "plotly": {"launch"},
    "waitress": {"launch"},
    "werkzeug": {"launch"},
    "pydantic": {"launch", "workflows"},
    "llvmlite": {"potentials"},
    "numba": {"potentials", "workflows"},
}
# Packages that take long to import, or that only a running command needs.
HEAVY = {"numba", "numpy", "scipy", "ase", "pymatgen", "fireworks", "pymongo", "matplotlib"}
HEAVY |= {"dash", "flask", "plotly", "waitress"}

MODULES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))


def imported(path):
    """Dotted names that a module imports anywhere, with the line of each.

    A string that is exactly a module's name, or ``module:name``, counts: it is meant for importlib.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(r"(hullscreen\.(\w+)(\.\w+)*)(:\w+)?", node.value)
            if named and named[2] in MAY_IMPORT:
                yield named[1], node.lineno


def is_shared(name):
    return any(name == shared or name.startswith(f"{shared}.") for shared in SHARED)


def label(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_imports_point_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    for name, line in imported(path):
        first, *rest = name.split(".")
        place = f"{label(path)}:{line} imports {name}"
        assert first not in MAY_IMPORT, f"{place}; write hullscreen.{name}"
        if first == "hullscreen":
            assert rest, place
            assert rest[0] == folder or rest[0] in MAY_IMPORT[folder] or is_shared(name), place
        assert folder in ONLY_IN.get(first, {folder}), place


@pytest.mark.parametrize("name", sorted(SHARED))
def test_shared_modules_import_nothing_but_one_another(name):
    path = ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
    ours = [found for found, _ in imported(path) if found.startswith("hullscreen")]
    assert all(is_shared(found) for found in ours)


def test_the_import_rule_sees_every_form(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import a.b\nfrom c import d\ndef f():\n    from e.f import g\n"
        'NAME = "hullscreen.launch.run:main"\n'
        'TEXT = "see hullscreen.launch"\nFILE = "hullscreen.toml"\n'
    )
    assert {name for name, _ in imported(path)} == {"a.b", "c.d", "e.f.g", "hullscreen.launch.run"}


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_modules_say_what_they_are_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?"))


def test_packages_are_the_folders():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for folder in MAY_IMPORT
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(project["package-dir"].values()) == folders
    assert set(project["packages"]) == set(project["package-dir"])
    for package, folder in project["package-dir"].items():
        assert package == "hullscreen." + folder.replace("/", ".")


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_folders_are_typed_and_linked_for_tools(folder):
    assert (ROOT / folder / "py.typed").exists()
    assert (ROOT / ".dev" / "hullscreen" / folder).resolve() == ROOT / folder


def loaded_after(statement):
    """Top-level names of the modules in memory after a statement, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules, file=sys.stderr)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


def test_help_imports_nothing_heavy():
    started = time.perf_counter()
    loaded = loaded_after("from hullscreen.launch.command_line import main; main(['--help'])")
    print(f"hullscreen --help: {time.perf_counter() - started:.2f} s")
    assert not loaded & (HEAVY | {"pydantic", "rich"})


def test_help_of_a_command_imports_nothing_heavy():
    names = [name for name, entry in COMMANDS.items() if not entry.hidden]
    statement = (
        "from hullscreen.launch.command_line import main\n"
        f"assert not any(main([name, '--help']) for name in {names})"
    )
    assert not loaded_after(statement) & HEAVY


def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_table_of_settings():
    assert markdown_table() in readme()


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if not entry.hidden])
def test_the_readme_names_every_command(name):
    assert re.search(rf"^\| `hullscreen {name}\b", readme(), flags=re.MULTILINE)


def test_the_readme_has_the_exit_codes():
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in readme()


def test_the_readme_points_at_files_that_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", readme())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
