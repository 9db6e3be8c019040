import pytest

from hullscreen.dft_adapters.engine import EngineMissingError
from hullscreen.dft_adapters.espresso_settings import settings_from_table
from hullscreen.dft_adapters.pseudopotentials import (
    find_pseudopotentials,
    functional_name,
    read_header,
)
from hullscreen.potentials.errors import SettingsError

VERSION_2 = """<UPF version="2.0.1">
<PP_INFO> Element: nothing of the kind </PP_INFO>
<PP_HEADER generated='A. "B" C' element="{element}" is_paw="false"
functional=" {functional} " z_valence="1.10000000E+001"/>
<PP_MESH/></UPF>
"""
VERSION_1 = """<PP_INFO>
</PP_INFO>
<PP_HEADER>
   0                   Version Number
  {element}                   Element
   US                  Ultrasoft pseudopotential
    T                  Nonlinear Core Correction
 {functional}     PBE  Exchange-Correlation functional
    9.00000000000      Z valence
</PP_HEADER>
"""


@pytest.fixture
def folder(tmp_path):
    def write(name, element, functional, text=VERSION_2):
        (tmp_path / name).write_text(text.format(element=element, functional=functional))

    write("Al.lda.UPF", "Al", "SLA PZ NOGX NOGC")
    write("Al.pbe.UPF", "Al", "SLA PW PBX PBC")
    write("Rh.pbe.UPF", "Rh", "SLA  PW   PBE  PBE", VERSION_1)
    write("cu_a.upf", "Cu", "PBE")
    write("cu_b.upf", "Cu", "PBE")
    (tmp_path / "Pd.torn.UPF").write_text(VERSION_2.removesuffix("</UPF>\n"))
    (tmp_path / "Ni.pbe.UPF").write_text("not a pseudopotential")
    return tmp_path


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        (" SLA  PZ   NOGX NOGC", "LDA"),
        ("pz", "LDA"),
        ("SLA PW PBX PBC", "PBE"),
        ("SLA PW PBE PBE", "PBE"),
        ("PBESOL", "PBEsol"),
        ("SLA  PW  PSX  PSC", "PBEsol"),
        ("blyp", "BLYP"),
    ],
)
def test_functionals_have_one_name(spelling, name):
    assert functional_name(spelling) == name


def test_headers_of_both_versions(folder):
    aluminium = read_header(folder / "Al.lda.UPF")
    assert (aluminium.element, aluminium.functional, aluminium.valence) == ("Al", "LDA", 11.0)
    rhodium = read_header(folder / "Rh.pbe.UPF")
    assert (rhodium.element, rhodium.functional, rhodium.valence) == ("Rh", "PBE", 9.0)
    assert read_header(folder / "Ni.pbe.UPF") is None


def test_the_fitting_file_is_found(folder):
    found = find_pseudopotentials(folder, {}, "PBE", ["Al", "Rh"])
    assert {e: p.path.name for e, p in found.items()} == {"Al": "Al.pbe.UPF", "Rh": "Rh.pbe.UPF"}


@pytest.mark.parametrize(
    ("files", "functional", "element", "message"),
    [
        ({}, "PBE", "Ti", r"no PBE pseudopotential for Ti .*for Ti there: none"),
        ({}, "LDA", "Rh", r"no LDA .*Rh\.pbe\.UPF \(PBE\)"),
        ({}, "PBE", "Cu", r"several .*cu_a\.upf, cu_b\.upf"),
        ({"Al": "Al.upf"}, "LDA", "Al", r"'Al\.upf' for Al is not in"),
        ({"Al": "Al.pbe.UPF"}, "LDA", "Al", "was made for PBE, expected LDA"),
        ({"Cu": "Al.pbe.UPF"}, "PBE", "Cu", "is for Al, not for Cu"),
        ({"Pd": "Pd.torn.UPF"}, "PBE", "Pd", "is not a whole pseudopotential"),
        ({"Ni": "Ni.pbe.UPF"}, "PBE", "Ni", "is not a whole pseudopotential"),
    ],
)
def test_what_does_not_fit_is_said(folder, files, functional, element, message):
    with pytest.raises(EngineMissingError, match=message):
        find_pseudopotentials(folder, files, functional, [element])


@pytest.mark.parametrize("name", ["Al pbe.UPF", "Al'.UPF", "more/Al.UPF", "Al,1.UPF"])
def test_names_that_pw_x_cannot_read_are_said(folder, name):
    (folder / "more").mkdir()
    (folder / name).write_bytes((folder / "Al.pbe.UPF").read_bytes())
    with pytest.raises(EngineMissingError, match="cannot read the name of the pseudopotential"):
        find_pseudopotentials(folder, {"Al": name}, "PBE", ["Al"])


def test_a_path_that_is_too_long_for_pw_x_is_said(folder):
    long = folder / ("x" * 120) / ("y" * 120)
    long.mkdir(parents=True)
    (long / "Al.UPF").write_bytes((folder / "Al.pbe.UPF").read_bytes())
    with pytest.raises(EngineMissingError, match=r"bytes, and pw\.x reads 255; set"):
        find_pseudopotentials(long, {}, "PBE", ["Al"])


def test_what_is_no_file_is_passed_over(folder):
    (folder / "Al.loop.UPF").symlink_to("Al.loop.UPF")
    (folder / "Al.gone.UPF").symlink_to("nothing")
    (folder / "Al.folder.UPF").mkdir()
    found = find_pseudopotentials(folder, {}, "PBE", ["Al"])
    assert found["Al"].path.name == "Al.pbe.UPF"


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(EngineMissingError, match="does not exist; set `pseudopotentials`"):
        find_pseudopotentials(tmp_path / "nowhere", {}, "PBE", ["Al"])


def test_debian_files_are_what_the_preset_says(debian_pseudopotentials):
    for preset in ("debian-lda", "debian-pbe"):
        settings = settings_from_table({"preset": preset})
        found = find_pseudopotentials(
            debian_pseudopotentials, settings.files, settings.functional, sorted(settings.files)
        )
        assert set(found) == set(settings.files)


def own(folder, **changes):
    table = {"preset": "own-pseudopotentials", "pseudopotentials": str(folder), **changes}
    return settings_from_table({"functional": "PBE", **table})


def test_cutoffs_are_the_largest_that_the_headers_suggest(tmp_path):
    suggesting = VERSION_2.replace(
        "z_valence", 'wfc_cutoff="{functional}" rho_cutoff="{element}" z_valence'
    )
    for name, cutoff, density in (("Al", "3.0d1", "0.0"), ("Ni", "4.5E+001", "3.6E+002")):
        text = suggesting.format(functional=cutoff, element=density)
        (tmp_path / f"{name}.UPF").write_text(text)
    norm_conserving = VERSION_1.replace(
        "Z valence", "Z valence\n 50.0 0.0 Suggested cutoff for wfc and rho"
    )
    (tmp_path / "Cu.UPF").write_text(norm_conserving.format(element="Cu", functional="PBE"))
    two = own(tmp_path, files={"Al": "Al.UPF", "Ni": "Ni.UPF"})
    assert (two.cutoff_ry, two.density_cutoff_ry) == (45.0, 360.0)
    # Four times the cutoff of the waves where a file names none for the density.
    one = own(tmp_path, files={"Cu": "Cu.UPF"})
    assert (one.cutoff_ry, one.density_cutoff_ry) == (50.0, 200.0)
    given = own(tmp_path, files={"Al": "Al.UPF"}, cutoff_ry=20.0, density_cutoff_ry=80.0)
    assert (given.cutoff_ry, given.density_cutoff_ry) == (20.0, 80.0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "set `files` under"),
        ({"Al": "Al.lda.UPF"}, r"Al\.lda\.UPF' suggests no cutoff; give `cutoff_ry`"),
        ({"Ni": "Ni.pbe.UPF"}, "is not a whole pseudopotential"),
        ({"Ni": "nowhere.UPF"}, "is not a whole pseudopotential"),
    ],
)
def test_files_without_cutoffs_are_said(folder, files, message):
    with pytest.raises(SettingsError, match=message):
        own(folder, files=files)


@pytest.mark.parametrize(
    ("fraction", "symbols", "polarised"),
    [
        (0.0, ["Al", "Al", "Al", "Ni"], True),
        (0.0, ["Al", "Cu"], False),
        (0.9, ["Ni", "Ni", "Ni", "Al"], False),
        (0.75, ["Ni", "Ni", "Ni", "Al"], True),
        (0.9, ["Ni"], True),
    ],
)
def test_spin_from_a_share_of_magnetic_elements(fraction, symbols, polarised):
    settings = settings_from_table({"preset": "debian-lda", "spin_from_fraction": fraction})
    assert settings.is_polarised(symbols) is polarised
