"""What the fake VASP writes, in VASP's layout, one step after the other."""

import sys
import time
from html import escape
from pathlib import Path

import numpy as np
from fake_inputs import VALENCE

VERSION = "6.4.2"
BANNER = "FAKE VASP: a test tool, energies are EMT's (effective medium theory), not DFT"
HEADER = (
    "       N       E                     dE             d eps       ncg     rms          rms(c)"
)
# kbar in eV/Å³, as VASP counts.
KBAR = 1602.1766208
MASS = {"Al": 26.98, "Ni": 58.69, "Cu": 63.55, "Pd": 106.42, "Ag": 107.87, "Pt": 195.08}


def rows(array, width=16, digits=8):
    return ["".join(f"{x:{width}.{digits}f}" for x in row) for row in np.atleast_2d(array)]


class Outputs:
    """Open files of one run; everything is flushed at once, as a killed VASP leaves it."""

    def __init__(self, inputs):
        self.inputs = inputs
        self.began = time.monotonic()
        self.files = {
            name: Path(name).open("w", encoding="utf-8")  # noqa: SIM115 - open till the end
            for name in ("OUTCAR", "OSZICAR", "vasprun.xml")
        }
        self.n_ionic = 0
        self.energy = 0.0

    def write(self, name, *lines):
        self.files[name].write("\n".join(lines) + "\n")
        self.files[name].flush()

    def say(self, *lines):
        print(*lines, sep="\n", flush=True)

    def complain(self, *lines):
        """Where the run-time library of Fortran writes."""
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    def header(self):
        inputs = self.inputs
        kinds = list(dict.fromkeys(inputs.symbols))
        self.say(
            f" {BANNER}",
            " running    1 mpi-ranks, on    1 nodes",
            f" vasp.{VERSION} fake",
            f" POSCAR found type information on POSCAR {' '.join(kinds)}",
            f" POSCAR found :  {len(kinds)} types and {len(inputs.symbols):7d} ions",
            " LDA part: xc-table for Pade appr. of Perdew",
            " POSCAR, INCAR and KPOINTS ok, starting setup",
            " entering main loop",
        )
        self.write(
            "OUTCAR",
            f" vasp.{VERSION} fake complex",
            f" {BANNER}",
            " executed on             LinuxGNU date 2000.01.01  00:00:00",
            " running on    1 total cores",
            *(f" TITEL  = {title}" for title in inputs.titles),
            "   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   "
            f"number of bands    NBANDS={inputs.n_bands:7d}",
            "   total plane-waves  NPLWV =   1000",
            f"   NELECT = {inputs.n_electrons:12.4f}    total number of electrons",
            f"   ISPIN  = {inputs.tag('ISPIN', 1):6d}    spin polarized calculation?",
            f"   NSW    = {inputs.tag('NSW'):6d}    number of steps for IOM",
            f"   IBRION = {inputs.tag('IBRION'):6d}    ionic relax: 0-MD 1-quasi-New 2-CG",
            f"   NELM   = {inputs.tag('NELM'):6d}    max. number of electronic steps",
            "  maximum number of plane-waves:       100",
        )
        Path("IBZKPT").write_text(
            "Automatically generated mesh\n       1\nReciprocal lattice\n    0.0 0.0 0.0 1\n"
        )
        self._xml_header(kinds)

    def _xml_header(self, kinds):
        inputs = self.inputs
        counts = [inputs.symbols.count(kind) for kind in kinds]
        grid = " ".join(map(str, inputs.grid))
        atoms = [f"<rc><c>{s:2s}</c><c>{kinds.index(s) + 1:4d}</c></rc>" for s in inputs.symbols]
        types = [
            f"<rc><c>{n:4d}</c><c>{kind:2s}</c><c>{MASS.get(kind, 196.97):16.8f}</c>"
            f"<c>{VALENCE[kind]:16.8f}</c><c>{title:40s}</c></rc>"
            for kind, n, title in zip(kinds, counts, inputs.titles, strict=True)
        ]
        self.write(
            "vasprun.xml",
            '<?xml version="1.0" encoding="ISO-8859-1"?>',
            "<modeling>",
            " <generator>",
            '  <i name="program" type="string">vasp </i>',
            f'  <i name="version" type="string">{VERSION}  </i>',
            '  <i name="subversion" type="string">fake: EMT, not DFT </i>',
            " </generator>",
            " <incar>",
            *self._tags(inputs.incar),
            " </incar>",
            " <kpoints>",
            f'  <generation param="{inputs.style}">',
            f'   <v type="int" name="divisions"> {grid} </v>',
            '   <v name="usershift"> 0.0 0.0 0.0 </v>',
            "  </generation>",
            '  <varray name="kpointlist"><v> 0.0 0.0 0.0 </v></varray>',
            '  <varray name="weights"><v> 1.0 </v></varray>',
            " </kpoints>",
            " <parameters>",
            *self._tags(
                {name: inputs.tag(name) for name in ("NELM", "NSW", "IBRION", "EDIFFG", "ISIF")}
                | {"ISPIN": inputs.tag("ISPIN", 1), "NELECT": float(inputs.n_electrons)}
            ),
            " </parameters>",
            " <atominfo>",
            f"  <atoms> {len(inputs.symbols)} </atoms>",
            f"  <types> {len(kinds)} </types>",
            '  <array name="atoms"><set>',
            *atoms,
            "  </set></array>",
            '  <array name="atomtypes"><set>',
            *types,
            "  </set></array>",
            " </atominfo>",
            *self._structure(inputs.cell, inputs.fractions, "initialpos"),
        )

    @staticmethod
    def _tags(tags):
        kinds = {bool: ' type="logical"', int: ' type="int"', str: ' type="string"', float: ""}
        for name, value in tags.items():
            shown = {True: " T ", False: " F "}[value] if isinstance(value, bool) else f" {value} "
            yield f'  <i{kinds[type(value)]} name="{name}">{escape(shown, quote=False)}</i>'

    @staticmethod
    def _structure(cell, fractions, name=""):
        label = f' name="{name}"' if name else ""
        return [
            f" <structure{label}>",
            '  <crystal><varray name="basis">',
            *(f"   <v>{row} </v>" for row in rows(cell, 20, 14)),
            f'  </varray><i name="volume"> {abs(np.linalg.det(cell)):16.8f} </i></crystal>',
            '  <varray name="positions">',
            *(f"   <v>{row} </v>" for row in rows(fractions % 1.0, 20, 16)),
            "  </varray>",
            " </structure>",
        ]

    def electronic_step(self, number, energy, change):
        """One line of the self-consistency loop."""
        if number == 1:
            self.write("OSZICAR", HEADER)
            self.say(HEADER)
            self.write("vasprun.xml", " <calculation>")
        line = f"DAV: {number:3d} {energy:20.12E}{change:15.5E}{change:14.5E}  100 {0.1:9.3E}"
        self.write("OSZICAR", line)
        self.say(line)
        self.write(
            "OUTCAR",
            f"--------------- Iteration {self.n_ionic + 1:6d}({number:4d})  ---------------",
            f" number of electron {self.inputs.n_electrons:15.7f} magnetization       0.0000000",
            f"  free energy    TOTEN  = {energy:18.8f} eV",
            "      LOOP:  cpu time    0.0010: real time    0.0010",
        )
        self.write(
            "vasprun.xml",
            "  <scstep>",
            *self._energies(energy, energy, energy, "   "),
            "  </scstep>",
        )

    @staticmethod
    def _energies(free, without, zero, indent):
        return [
            f"{indent}<energy>",
            f'{indent} <i name="e_fr_energy"> {free:16.8f} </i>',
            f'{indent} <i name="e_wo_entrp"> {without:16.8f} </i>',
            f'{indent} <i name="e_0_energy"> {zero:16.8f} </i>',
            f"{indent}</energy>",
        ]

    def ionic_step(self, cell, fractions, energy, forces, stress, *, converged=True):
        """End of an ionic step; ``stress`` in eV/Å³ with ASE's sign."""
        self.n_ionic += 1
        seconds = time.monotonic() - self.began
        self.began = time.monotonic()
        n_atoms = len(fractions)
        # Methfessel-Paxton of first order: the entropy term is small.
        without = energy + 2e-4 * n_atoms
        zero = (2.0 * energy + without) / 3.0
        kbar = -stress * KBAR
        change = energy - self.energy
        self.energy = energy
        line = f"{self.n_ionic:4d} F= {energy:.8E} E0= {zero:.8E}  d E ={change:.6E}"
        self.write("OSZICAR", line)
        self.say(line)
        if converged:
            self.write(
                "OUTCAR",
                "------------------------ aborting loop because EDIFF is reached ---------------",
            )
        xx, yy, zz, xy, yz, zx = (
            kbar[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
        )
        self.write(
            "OUTCAR",
            " E-fermi :   5.0000     XC(G=0):  -9.0000     alpha+bet : -9.0000",
            f" number of electron {self.inputs.n_electrons:15.7f} magnetization       0.0000000",
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
            f"  entropy T*S    EENTRO = {energy - without:18.8f}",
            f"  free  energy   TOTEN  = {energy:18.8f} eV",
            f"  energy  without entropy= {without:18.8f}  energy(sigma->0) = {zero:18.8f}",
            f"  in kB  {xx:12.5f}{yy:12.5f}{zz:12.5f}{xy:12.5f}{yz:12.5f}{zx:12.5f}",
            f"  external pressure = {np.trace(kbar) / 3.0:12.2f} kB  Pullay stress =  0.00 kB",
            " POSITION                                       TOTAL-FORCE (eV/Angst)",
            " " + "-" * 83,
            *(
                p + f
                for p, f in zip(rows(fractions @ cell, 13, 5), rows(forces, 14, 6), strict=True)
            ),
            " " + "-" * 83,
            "    total drift:                                0.000000  0.000000  0.000000",
            f"     LOOP+:  cpu time {seconds:10.4f}: real time {seconds:10.4f}",
        )
        self.write(
            "vasprun.xml",
            *self._structure(cell, fractions),
            '  <varray name="forces">',
            *(f"   <v>{row} </v>" for row in rows(forces)),
            "  </varray>",
            '  <varray name="stress">',
            *(f"   <v>{row} </v>" for row in rows(kbar)),
            "  </varray>",
            *self._energies(energy, without, zero, "  "),
            " </calculation>",
        )
        self.contcar(cell, fractions)

    def contcar(self, cell, fractions):
        kinds = list(dict.fromkeys(self.inputs.symbols))
        lines = [
            "fake VASP",
            "   1.00000000000000",
            *rows(cell, 22, 16),
            "   " + "  ".join(kinds),
            "   " + "  ".join(str(self.inputs.symbols.count(kind)) for kind in kinds),
            "Direct",
            *rows(fractions % 1.0, 20, 16),
            "",
            *rows(np.zeros_like(fractions), 16, 8),
        ]
        Path("CONTCAR").write_text("\n".join(lines) + "\n")

    def end(self, cell, fractions):
        """The last lines of a run that ended by itself."""
        self.write("vasprun.xml", *self._structure(cell, fractions, "finalpos"), "</modeling>")
        self.write(
            "OUTCAR",
            " General timing and accounting informations for this job:",
            "                  Total CPU time used (sec):        1.000",
            "                            User time (sec):        1.000",
            "                          System time (sec):        0.100",
            "                         Elapsed time (sec):        1.100",
            "                   Maximum memory used (kb):       10000.",
        )
