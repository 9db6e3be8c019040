import textwrap

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from hullscreen.dft_adapters.ase_engine import ASEEngine
from hullscreen.dft_adapters.engine import CalculationError, EngineMissingError, fingerprint

OWN_CALCULATORS = """
    import numpy as np
    from ase.calculators.calculator import Calculator, all_changes
    from ase.calculators.emt import EMT

    class Counted(EMT):
        made = 0
        def __init__(self, **kwargs):
            type(self).made += 1
            super().__init__(**kwargs)

    class Single(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results = {k: np.float32(v) for k, v in self.results.items()}

    class NoStress(Calculator):
        implemented_properties = ["energy", "forces"]

    class NotFinite(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["energy"] = float("nan")

    class Keyed(Calculator):
        implemented_properties = ["energy", "forces", "stress"]
        def __init__(self, weights):
            super().__init__()
            self.table = {46: 1.0}
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            energy = sum(self.table[z] for z in atoms.numbers)
            self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3)),
                            "stress": np.zeros(6)}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Import path of a calculator in a module of the user's own."""
    (tmp_path / "own_calculators.py").write_text(textwrap.dedent(OWN_CALCULATORS))
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda name: f"own_calculators:{name}"
    import sys

    sys.modules.pop("own_calculators", None)


def rattled():
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Pd"
    atoms.rattle(0.1, seed=3)
    return atoms


def test_a_single_point_is_what_ase_says(tmp_path):
    atoms = rattled()
    before = atoms.copy()
    result = ASEEngine().single_point(atoms, tmp_path)
    assert atoms == before
    atoms.calc = EMT()
    # The same code on the same numbers.
    assert result.energy == atoms.get_potential_energy()
    assert np.array_equal(result.forces, atoms.get_forces())
    assert np.array_equal(result.stress, atoms.get_stress(voigt=False))
    assert np.array_equal(result.cell, atoms.cell[:])
    assert (result.converged, result.n_evaluations, result.engine) == (True, 1, "EMT")


def test_the_calculator_is_made_once(own, tmp_path):
    engine = ASEEngine(own("Counted"))
    engine.check(["Cu", "Pd"])
    engine.single_point(bulk("Cu"), tmp_path)
    engine.relax(bulk("Pd"), tmp_path, force_tolerance=1e-2, stress_tolerance=1e-3, max_steps=20)
    import own_calculators

    assert own_calculators.Counted.made == 1


def test_single_precision_becomes_double_and_relaxes(own, tmp_path):
    result = ASEEngine(own("Single")).relax(
        rattled(), tmp_path, force_tolerance=0.01, stress_tolerance=6e-4, max_steps=100
    )
    assert result.converged
    assert type(result.energy) is float
    for array in (result.forces, result.stress, result.cell, result.positions):
        assert array.dtype == np.float64
    exact = ASEEngine().relax(
        rattled(), tmp_path, force_tolerance=0.01, stress_tolerance=6e-4, max_steps=100
    )
    # Both stop within the tolerance's 0.01 meV/atom.
    assert result.energy == pytest.approx(exact.energy, abs=4e-5)


@pytest.mark.parametrize("element", ["Fe", "Ti", "H", "Xx"])
def test_elements_without_emt_are_named(element):
    with pytest.raises(EngineMissingError, match=element) as caught:
        ASEEngine().check(["Cu", element])
    assert caught.value.reason == "unknown_element"
    if element != "Xx":
        assert "it has Ag, Al, Au, Cu, Ni, Pd, Pt" in str(caught.value)


def test_the_elements_emt_claims_it_really_computes():
    ASEEngine().check(["Ag", "Al", "Au", "Cu", "Ni", "Pd", "Pt"])


def test_a_module_that_is_gone_is_told_also_where_only_its_version_is_asked():
    with pytest.raises(EngineMissingError, match="'slow_emt:Slow' cannot be imported") as caught:
        fingerprint(ASEEngine("slow_emt:Slow"), ["Cu", "Pd"])
    assert caught.value.reason == "missing_calculator"


def test_elements_are_tried_where_a_calculator_cannot_be_asked(own):
    engine = ASEEngine(own("Keyed"), {"weights": 1})
    engine.check(["Pd"])
    with pytest.raises(EngineMissingError, match="cannot compute Cu"):
        engine.check(["Pd", "Cu"])


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("no_such_package.calculator:Net", {}, "install the package that provides 'no_such_pack"),
        ("ase.calculators.emt:EMTT", {}, "has no calculator 'EMTT'"),
        ("ase.calculators.emt:EMT", {"asap_cutof": True}, "has no argument 'asap_cutof'; it has"),
        ("own_calculators:Keyed", {"wieghts": 1}, "does not accept the arguments"),
        ("own_calculators:NoStress", {}, "does not compute stress"),
    ],
)
def test_a_calculator_that_cannot_be_made_is_one_sentence(own, path, arguments, message):
    with pytest.raises(EngineMissingError, match=message) as caught:
        ASEEngine(path, arguments).check(["Cu"])
    assert "\n" not in str(caught.value)


def test_a_result_that_is_none_is_an_error(own, tmp_path):
    with pytest.raises(CalculationError, match="energy that is not a finite number"):
        ASEEngine(own("NotFinite")).single_point(bulk("Cu"), tmp_path)


def test_an_element_in_the_middle_of_a_campaign_is_an_error(tmp_path):
    with pytest.raises(CalculationError, match="No EMT-potential for Fe") as caught:
        ASEEngine().single_point(bulk("Fe"), tmp_path)
    assert caught.value.reason == "calculator_failed"


def test_fingerprints_follow_what_changes_energies(own, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_text("one")
    fingerprints = [
        fingerprint(ASEEngine(), ["Cu"]),
        fingerprint(ASEEngine(arguments={"asap_cutoff": True}), ["Cu"]),
        fingerprint(ASEEngine(own("Keyed"), {"weights": str(weights)}), ["Cu"]),
    ]
    assert fingerprints[0] == fingerprint(ASEEngine(arguments={}), ["Cu"])
    weights.write_text("two")
    fingerprints.append(fingerprint(ASEEngine(own("Keyed"), {"weights": str(weights)}), ["Cu"]))
    assert len(set(fingerprints)) == len(fingerprints)
