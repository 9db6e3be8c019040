"""What goes wrong in ``pw.x``, how its output says so, and what helps.

Sources of the rows: "recorded" outputs of pw.x 6.7 made to fail so (in the tests), the "messages"
in its executable, and the list of aiida-quantumespresso's PwBaseWorkChain (S. Huber et al., npj
Comput. Mater. 7, 136 (2021)), from which the order of the corrections comes where it has one. No
correction changes what a converged calculation gives: smearing, cutoffs, k points and occupations
stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hullscreen.dft_adapters.corrections import MAX_CORRECTIONS, Correction
from hullscreen.dft_adapters.failures import DISK_FULL, LAUNCHER, Failure
from hullscreen.dft_adapters.runner import NOT_LAUNCHED, NOT_STARTED

CRASH_FILE = "CRASH"
FIRST_WORDS = "Program PWSCF"
# pw.x says where, and in the next line what.
OWN_WORDS = r"(?:Error in routine|from)\s+\w+\s*(?:\(|: error #).*\n\s*(.*\S)"
# pw.x: 0 done, 3 done but the geometry not converged. 2 is an unconverged scf as well as
# max_seconds, 1 an error; none of these says so reliably in words alone, or by its number alone.
GOOD_CODES = (0, 3)
# Fortran keeps the last words in a buffer that an aborted process never writes.
UNBUFFERED = {"GFORTRAN_UNBUFFERED_PRECONNECTED": "1"}

FAILURES = (
    Failure(
        r"No space left on device|Disk quota exceeded|File too large|OUT-OF-RESOURCE",
        DISK_FULL,
        "found no room on its disk; make room and run again",
        "recorded",
        of_the_machine=True,
    ),
    Failure(
        NOT_STARTED + r"|pw[\w.-]*\.x['’\"]?: (No such file or directory|Permission denied)",
        "missing_executable",
        "could not start pw.x; look at `command`, and load the modules it was compiled with",
        "ld.so and the shell; the process that starts pw.x",
        of_the_machine=True,
    ),
    Failure(
        NOT_LAUNCHED,
        LAUNCHER,
        "was not started by srun or mpirun; compare `command` with what the job was given by the "
        "queue",
        "messages of Slurm, Open MPI and Intel MPI",
        of_the_machine=True,
        quoted=rf"(.*(?:{NOT_LAUNCHED}).*)",
    ),
    Failure(
        r"convergence NOT achieved",
        "unconverged_scf",
        "did not reach self-consistency; lower mixing_beta or raise smearing_ry or max_scf_steps",
        "recorded; PwBase 410, 510, 511",
    ),
    Failure(
        r"Maximum CPU time exceeded",
        "time_limit",
        "ran into its time limit; raise timeout_s or run on more cores",
        "recorded; PwBase 400",
    ),
    Failure(
        r"Program stopped by user request|Signal Received, stopping",
        "stopped",
        "was stopped from outside",
        "recorded",
    ),
    Failure(
        r"file xmltools\.f90|xmlr_opentag: severe parsing|read_upf|upf_error"
        r"|after EOF marker",
        "unreadable_pseudopotential",
        "could not read a pseudopotential to its end; get the file again",
        "recorded",
        of_the_machine=True,
    ),
    Failure(
        r"from\s+readpp|routine\s+readpp",
        "missing_pseudopotential",
        "did not find or could not read a pseudopotential; look at `pseudopotentials` and `files`",
        "recorded",
        of_the_machine=True,
    ),
    Failure(
        r"(from|routine)\s+(checkallsym|check_atoms|sym_rho_init).*\n.*(overlap|coinciding|same)"
        r"|atoms #.*(overlap|differ by lattice vector)",
        "overlapping_atoms",
        "holds two atoms at the same place; the structure is wrong",
        "recorded",
    ),
    Failure(
        r"more bands than PWs|too many bands, or too few plane waves",
        "too_small_cell",
        "has fewer plane waves than bands; the cell is far too small",
        "recorded",
    ),
    Failure(
        r"too few bands",
        "too_few_bands",
        "has too few bands; leave nbnd out of extra_input",
        "recorded",
    ),
    Failure(
        r"Not enough space allocated for radial FFT",
        "cell_factor",
        "changed its cell by more than the tables allow for; raise cell_factor in extra_input",
        "recorded; PwBase 542",
    ),
    Failure(
        r"smearing is needed",
        "wrong_input",
        "is a metal but was given fixed occupations; look at extra_input in the settings",
        "recorded",
    ),
    Failure(
        r"charge is wrong|wrong charge",
        "wrong_charge",
        "lost electrons; the cell may be far too small, or a pseudopotential bad",
        "recorded; PwBase 531",
    ),
    Failure(
        r"S matrix not positive definite|problems computing cholesky"
        r"|eigenvectors failed to converge|zhegvd failed|qr\(X, 0\) failed"
        r"|too many bands are not converged|diagonalization \(ZHEEV\) failed"
        r"|routine\s+(cdiaghg|rdiaghg|ppcg)",
        "diagonalisation",
        "could not diagonalise; look for atoms that are too close",
        "recorded; PwBase 462 to 467",
    ),
    Failure(
        r"routine\s+(mix_rho|broyden)",
        "mixing",
        "could not mix the density; lower mixing_beta in extra_input",
        "messages; PwBase 468",
    ),
    Failure(
        r"not orthogonal operation|lone vector"
        r"|(from|routine)\s+(smallgk|checkallsym|sgam_\w+|inverse_s|irrek\w*)",
        "symmetry",
        "lost the symmetry that it began with",
        "recorded; PwBase 541",
    ),
    Failure(
        r"pools with no k-points|Error in routine divide_et_impera",
        "parallelisation",
        "has fewer k points than pools; lower -nk in `command`",
        "messages; PwBase 481",
        of_the_machine=True,
    ),
    Failure(
        r"[Cc]annot allocate|Integer overflow when calculating the amount of memory"
        r"|Error allocating \d+ bytes|[Oo]ut [Oo]f [Mm]emory|oom[-_]kill|not enough space",
        "memory",
        "needed more memory than there is; run fewer jobs on a node, or each on more cores",
        "messages",
        of_the_machine=True,
    ),
    Failure(
        # What goes on also says "Atomic positions from file used, from input discarded".
        r"(from|routine)\s+(read_namelists|read_cards|iosys|input|set_occupations|card_\w+)\s*[:(]",
        "wrong_input",
        "was refused its input; look at extra_input under [dft.quantum_espresso]",
        "recorded",
        quoted=OWN_WORDS,
    ),
    Failure(
        r"(cannot open|error opening|error reading|error writing) .*file"
        r"|routine\s+(davcio|open_buffer|write_buffer|write_rhog|write_scf|read_rhog)"
        r"|cannot write record",
        "scratch_files",
        "could not use its scratch files",
        "messages",
    ),
    Failure(
        r"%%%%%%%%\s*\n.*(task #|Error in routine)",
        "error",
        "stopped with an error of pw.x; its message is at the end of output.txt there",
        "recorded",
        quoted=OWN_WORDS,
    ),
    Failure(
        r"Fortran runtime error|forrtl: severe|SIGSEGV|[Ss]egmentation fault|SIGFPE|SIGABRT",
        "crash",
        "crashed inside pw.x; errors.txt there has its last words",
        "recorded",
    ),
)

_AGAIN = Correction("run again", continues="geometry")

CORRECTIONS: Mapping[str, Sequence[Correction]] = {
    "unconverged_scf": (
        Correction(
            "slower mixing (0.3) and more iterations",
            {"electrons": {"mixing_beta": 0.3, "electron_maxstep": 200}},
            "geometry",
        ),
        Correction(
            "slow mixing (0.1) with local Thomas-Fermi screening",
            {"electrons": {"mixing_beta": 0.1, "mixing_mode": "local-TF", "electron_maxstep": 300}},
            "geometry",
        ),
        Correction(
            "conjugate gradients and long mixing history",
            {
                "electrons": {
                    "mixing_beta": 0.05,
                    "mixing_ndim": 16,
                    "diagonalization": "cg",
                    "electron_maxstep": 500,
                }
            },
            "geometry",
        ),
    ),
    "time_limit": (Correction("gone on where its time was up", {}, "scratch"),) * MAX_CORRECTIONS,
    "stopped": (Correction("gone on where it was stopped", {}, "scratch"),),
    "timeout": (_AGAIN,),
    "killed": (_AGAIN, _AGAIN),
    "crash": (_AGAIN,),
    "unknown_failure": (_AGAIN,),
    "unreadable_result": (_AGAIN,),
    "no_result": (_AGAIN,),
    "scratch_files": (_AGAIN,),
    "too_few_bands": (
        Correction("as many bands as pw.x takes by itself", {"system": {"nbnd": None}}),
    ),
    "wrong_charge": (
        Correction(
            "random starting wave functions", {"electrons": {"startingwfc": "random"}}, "geometry"
        ),
    ),
    "diagonalisation": tuple(
        Correction(
            f"diagonalisation by {name}", {"electrons": {"diagonalization": word}}, "geometry"
        )
        for name, word in (
            ("parallel orbital updating", "paro"),
            ("projected preconditioned conjugate gradients", "ppcg"),
            ("conjugate gradients", "cg"),
        )
    ),
    "mixing": (
        Correction(
            "slower mixing (0.3) with a short history",
            {"electrons": {"mixing_beta": 0.3, "mixing_ndim": 4}},
            "geometry",
        ),
    ),
    "cell_factor": tuple(
        Correction(
            f"tables for a cell {n} times as large", {"cell": {"cell_factor": n}}, "geometry"
        )
        for n in (4.0, 8.0)
    ),
    "symmetry": (Correction("no symmetry", {"system": {"nosym": True}}, "geometry"),),
    "stalled": (
        Correction("shorter first steps", {"ions": {"trust_radius_ini": 0.05}}, "geometry"),
        Correction(
            "shortest steps",
            {"ions": {"trust_radius_ini": 0.01, "trust_radius_min": 1e-5}},
            "geometry",
        ),
    ),
}
