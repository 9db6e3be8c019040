"""Programs that are not ``pw.x``, standing where it should be."""

import numpy as np
import pytest
from ase.build import bulk

from hullscreen.dft_adapters.engine import (
    CalculationError,
    EngineMissingError,
    fingerprint,
    load_engine,
)

HEADER = '<UPF version="2.0.1"><PP_HEADER element="Al" functional="PBE" z_valence="3.0"/></UPF>'
XML = """<espresso><output>
<convergence_info><scf_conv><convergence_achieved>{converged}</convergence_achieved></scf_conv>
</convergence_info>
<atomic_structure><atomic_positions><atom name="{atom}">{position}</atom></atomic_positions>
<cell><a1>0 {a} {a}</a1><a2>{a} 0 {a}</a2><a3>{a} {a} 0</a3></cell></atomic_structure>
<total_energy><etot>{energy}</etot></total_energy>
<forces>{forces}</forces><stress>{stress}</stress></output></espresso>
"""
BEGUN = "echo '     Program PWSCF v.6.7MaX starts on 21Nov2026'; "
XML_PATH = "scratch/pwscf.save/data-file-schema.xml"
GOOD = {
    "a": "4", "converged": "true", "energy": "-2.5", "forces": "0 0 0", "stress": "0 " * 9,
    "atom": "Al", "position": "0 0 0",
}  # fmt: skip


@pytest.fixture
def impostor(tmp_path, executable):
    folder = tmp_path / "pseudo"
    folder.mkdir()
    (folder / "Al.UPF").write_text(HEADER)

    def make(script, **more):
        table = {"preset": "pseudo-dojo-pbe", "pseudopotentials": str(folder), **more}
        return load_engine({"engine": "quantum_espresso", "command": executable(script), **table})

    return make


def saying(**changes):
    text = XML.format(**{**GOOD, **changes})
    return f"mkdir -p scratch/pwscf.save; cat > {XML_PATH} <<'X'\n{text}X\n"


def test_an_honest_answer_is_understood(impostor, tmp_path):
    result = impostor(saying(energy="-2.5")).single_point(bulk("Al"), tmp_path / "run")
    # 2.5 Hartree in eV.
    assert result.energy == pytest.approx(-68.0284651, abs=1e-6)
    assert result.cell[0] == pytest.approx(np.array([0, 4, 4]) * 0.529177, abs=1e-5)


@pytest.mark.parametrize(
    ("script", "reason", "message"),
    [
        ("echo garbage", "no_result", "without writing data-file-schema.xml; is the executable"),
        (saying(energy="NaN"), "unreadable_result", "etot is nan"),
        (saying(energy="lots"), "unreadable_result", "could not convert"),
        (saying(a="NaN"), "unreadable_result", "its geometry is not finite"),
        (saying(position="0 0 1e999"), "unreadable_result", "its geometry is not finite"),
        (saying(atom="Ni"), "unreadable_result", "not those of Al in their order"),
        (saying().replace("<atom name", "<at name"), "unreadable_result", "not a complete result"),
        (
            saying().replace("<espresso>", '<?xml version="1.0" encoding="UTF-9"?><espresso>'),
            "unreadable_result",
            "unknown encoding",
        ),
        (
            saying() + "echo '!    total energy              =   *********** Ry'",
            "unreadable_result",
            "is not the one that pw.x printed",
        ),
        (saying(forces="NaN 0 0"), "not_finite", "gave a force that is not a finite number"),
        (saying(forces="0 0 0 0 0 0"), "wrong_shape", r"shape \(2, 3\)"),
        (saying(a="2"), "collapsed", r"changed the volume 0\.14 times"),
        (saying(stress="0"), "unreadable_result", "cannot reshape"),
        (saying(converged="false"), "unconverged_scf", "did not reach self-consistency"),
        (
            f"mkdir -p scratch/pwscf.save; echo '<esp' > {XML_PATH}",
            "unreadable_result",
            "not a complete result",
        ),
        (
            BEGUN + "exit 2",
            "unknown_failure",
            "ended with exit status 2 and no message that is known",
        ),
        ("kill -SEGV $$", "killed", "was ended by signal 11"),
        ("echo 'Program received signal SIGSEGV' >&2; exit 139", "crash", "crashed inside pw.x"),
        (saying() + "echo '   convergence NOT achieved after 3'; exit 2", "unconverged_scf", "did"),
        ("sleep 30", "timeout", r"was killed after 0\.5 s"),
    ],
)
def test_nonsense_is_one_sentence(impostor, tmp_path, script, reason, message):
    engine = impostor(script, timeout_s=0.5 if script.startswith("sleep") else 20)
    with pytest.raises(CalculationError, match=message) as caught:
        engine.single_point(bulk("Al"), tmp_path / "run")
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    assert all(sentence in str(caught.value) for sentence in caught.value.corrections)
    assert all(sentence.startswith(reason) for sentence in caught.value.corrections)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    # Neither a result nor a journal: who runs it again gets all attempts anew.
    assert not left & {"result.json", "corrections.json", "scratch"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo '     from readpp : error #  1' > CRASH; exit 1", "missing_pseudopotential"),
        ("echo 'At line 761 of file xmltools.f90' >&2; exit 2", "unreadable_pseudopotential"),
        ("echo 'cannot allocate memory'; exit 1", "memory"),
        ("echo 'srun: error: n1: task 0: Out Of Memory' >&2; exit 1", "memory"),
        (
            "echo 'pw.x: error while loading shared libraries: x.so: cannot open shared file' >&2",
            "missing_executable",
        ),
        (
            "echo 'There are not enough slots available in the system' >&2; exit 1",
            "launcher",
        ),
        ("echo 'Error in routine divide_et_impera (1):'; exit 1", "parallelisation"),
    ],
)
def test_what_the_machine_lacks_is_not_the_structures_failure(impostor, tmp_path, script, reason):
    with pytest.raises(EngineMissingError, match=f"in {tmp_path / 'run'} ") as caught:
        impostor(script).single_point(bulk("Al"), tmp_path / "run")
    assert caught.value.reason == reason
    assert impostor(saying()).single_point(bulk("Al"), tmp_path / "run").corrections == ()


def test_yesterdays_files_are_not_todays_result(impostor, tmp_path):
    impostor(saying()).single_point(bulk("Al", a=4.0), tmp_path / "run")
    with pytest.raises(CalculationError) as caught:
        impostor("echo nothing").single_point(bulk("Al", a=4.1), tmp_path / "run")
    assert caught.value.reason == "no_result"
    (tmp_path / "run" / "CRASH").write_text("from readpp : error")
    impostor(saying()).single_point(bulk("Al", a=4.2), tmp_path / "run")


def test_a_missing_executable_is_one_sentence(impostor, tmp_path):
    engine = impostor("exit 0", command="/no/such/pw.x")
    with pytest.raises(EngineMissingError, match=r"'/no/such/pw\.x' was not found"):
        engine.check(["Al"])
    with pytest.raises(EngineMissingError, match=r"'/no/such/pw\.x' was not found"):
        engine.single_point(bulk("Al"), tmp_path / "run")


def test_the_fingerprint_follows_the_pseudopotential(impostor, tmp_path):
    first = impostor("exit 0")
    assert fingerprint(first, ["Al"]) == fingerprint(impostor("exit 1", timeout_s=5), ["Al"])
    assert fingerprint(first, ["Al"]) != fingerprint(impostor("exit 0", cutoff_ry=80), ["Al"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "Al.UPF").write_text(HEADER + "\n")
    assert fingerprint(first, ["Al"]) != fingerprint(
        impostor("exit 0", pseudopotentials=str(other)), ["Al"]
    )


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo ----- >&2; echo 'my_launcher: no such partition.' >&2", "my_launcher: no such part"),
        ("echo 'only to standard output'", "only to standard output"),
        (":", "`command` printed nothing"),
    ],
)
def test_a_launcher_that_refuses_is_quoted_and_costs_no_correction(
    impostor, tmp_path, script, words
):
    engine = impostor(f"echo x >> ../runs; {script}; exit 1")
    with pytest.raises(EngineMissingError, match=words) as caught:
        engine.single_point(bulk("Al"), tmp_path / "run")
    assert caught.value.reason == "launcher"
    assert "[dft.quantum_espresso] in hullscreen.toml" in str(caught.value)
    assert (tmp_path / "runs").read_text() == "x\n"


def test_ranks_whose_words_were_lost_have_begun(impostor, tmp_path):
    with pytest.raises(CalculationError) as caught:
        impostor("echo 'MPI_ABORT was invoked on rank 0' >&2; exit 1").single_point(
            bulk("Al"), tmp_path / "run"
        )
    assert caught.value.reason == "unknown_failure"


@pytest.mark.parametrize(
    "entries",
    [
        {"electrons": {"mixing_beta": 0.3, "diago_david_ndim": 4, "Diagonalization": "cg"}},
        {"IONS": {"trust_radius_ini": 0.1, "bfgs_ndim": 3}, "cell": {"cell_factor": 3.0}},
        {"control": {"verbosity": "high", "disk_io": "none", "max_seconds": 100}, "system": {}},
    ],
)
def test_what_only_steers_convergence_is_not_in_the_fingerprint(impostor, entries):
    plain = fingerprint(impostor("exit 0"), ["Al"])
    assert fingerprint(impostor("exit 0", extra_input=entries), ["Al"]) == plain


@pytest.mark.parametrize(
    "entries", [{"system": {"nosym": True}}, {"electrons": {"conv_thr": 1e-4, "mixing_beta": 0.3}}]
)
def test_what_may_change_energies_is_in_the_fingerprint(impostor, entries):
    plain = fingerprint(impostor("exit 0"), ["Al"])
    assert fingerprint(impostor("exit 0", extra_input=entries), ["Al"]) != plain
