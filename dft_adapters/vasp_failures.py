"""Failures of VASP that custodian's handlers leave behind, as a table, and what is tried then.

custodian mends most of what VASP complains of while it runs (`hullscreen.dft_adapters.vasp_job`);
the rows here say what it means when that did not help, and which handler had tried.
"""

from __future__ import annotations

from collections.abc import Mapping

from hullscreen.dft_adapters.corrections import Correction
from hullscreen.dft_adapters.failures import DISK_FULL, LAUNCHER, Failure
from hullscreen.dft_adapters.runner import NOT_LAUNCHED, NOT_STARTED

GAVE_UP = "custodian gave up"
ENDED = "VASP ended with exit status"
WIKI = "https://www.vasp.at/wiki/index.php/"
HANDLER = "custodian.vasp.handlers."

# What is left when custodian has tried: its own words, then the end of what VASP printed. Rows that
# are the machine's come first, for a full disk or a missing library looks like many other failures.
FAILURES = (
    Failure(
        r"No space left on device|[Dd]isk quota exceeded|severe \(38\): error during write",
        DISK_FULL,
        "found no room on the disk; make room and run again",
        "errno ENOSPC and EDQUOT; Intel Fortran error 38",
        of_the_machine=True,
    ),
    Failure(
        r"No module named '(custodian|pymatgen|monty)",
        "missing_custodian",
        "needs custodian, which this Python does not have: pip install custodian",
        "Python's ModuleNotFoundError",
        of_the_machine=True,
    ),
    Failure(
        NOT_STARTED + r"|vasp[\w.]*['’\"]?: (No such file or directory|Permission denied)",
        "missing_executable",
        "could not start VASP; look at `command` under [dft.vasp], and load the modules it was "
        "compiled with",
        "ld.so and the shell; the process that starts VASP",
        of_the_machine=True,
    ),
    Failure(
        NOT_LAUNCHED,
        LAUNCHER,
        "was not started by srun or mpirun; compare `command` under [dft.vasp] with what the job "
        "was given by the queue",
        "messages of Slurm, Open MPI and Intel MPI",
        of_the_machine=True,
        quoted=rf"(.*(?:{NOT_LAUNCHED}).*)",
    ),
    Failure(
        r"file not found.*POTCAR|POTCAR.*(not found|missing|No such file)|"
        r"internal error in SET_CORE_WF|ERROR: the number of (data sets|types).*POTCAR",
        "wrong_potcar",
        "could not use its POTCAR; look at potcar_directory and potcars under [dft.vasp]",
        f"VASP's reader of POTCAR; {HANDLER}VaspErrorHandler set_core_wf (not mended)",
        of_the_machine=True,
    ),
    Failure(
        r"Error reading item|Error code was IERR= ?5|Unknown tag",
        "wrong_input",
        "was refused its INCAR; look at extra_incar under [dft.vasp]",
        f"VASP's reader of INCAR; {HANDLER}VaspErrorHandler read_error (not mended)",
    ),
    Failure(
        r"Allocation would exceed memory limit|insufficient virtual memory|oom[-_]kill|"
        r"Out [Oo]f [Mm]emory|allocation of .* failed",
        "memory",
        "needed more memory than there is; run it on more nodes, or lower KPAR in extra_incar",
        f"Intel Fortran, Slurm; {HANDLER}StdErrHandler out_of_memory halves KPAR",
        of_the_machine=True,
    ),
    Failure(
        rf"{ENDED} (137|143)",
        "killed",
        "was killed from outside, often for want of memory or at the end of the queue's job",
        "128 plus the number of the signal",
    ),
    Failure(
        r"LAPACK: Routine ZPOTRF failed|Routine ZPOTRF ZTRTRI",
        "overlapping_atoms",
        "lost the orthogonality of its orbitals (ZPOTRF), mostly because atoms are far too close",
        f"{HANDLER}VaspErrorHandler zpotrf: ISYM = 0, a larger cell, or a smaller POTIM",
    ),
    Failure(
        r"EDDDAV: Call to ZHEGV failed|EDDRMM: call to ZHEGV failed|EDDIAG: call to ZHEE|"
        r"Sub-Space-Matrix is not hermitian|subspace rotation P[SD]SYEVX|ZHEEV failed|"
        r"EDWAV: internal error",
        "diagonalisation",
        "could not diagonalise the Hamiltonian with any algorithm that custodian knows; look for "
        "atoms that are too close, or set NCORE = 1 in extra_incar",
        f"{WIKI}ALGO; {HANDLER}VaspErrorHandler edddav, eddrmm, zheev, subspacematrix: ALGO, NCORE",
    ),
    Failure(
        r"BRMIX: very serious problems",
        "charge_mixing",
        "lost charge while mixing densities; set AMIX and BMIX lower in extra_incar",
        f"{WIKI}IMIX; {HANDLER}VaspErrorHandler brmix: IMIX = 1, the grid, ISYM = 0",
    ),
    Failure(
        r"rotation matrix was not found|POSMAP|internal error in subroutine PRICEL|PRICELV|"
        r"internal error in subroutine IBZKPT|group operation missing|Inconsistent Bravais|SGRCON|"
        r"RHOSYG|HNFORM|non-integer element in rotation|unable to match k-point|"
        r"not all point group operations|different class of lattices|shows a strong",
        "symmetry",
        "could not make sense of the crystal's symmetry; set ISYM = 0 in extra_incar",
        f"{WIKI}SYMPREC; {HANDLER}VaspErrorHandler inv_rot_mat, posmap, pricel, …: SYMPREC, ISYM",
    ),
    Failure(
        r"TOO FEW BANDS|number of bands is not sufficient",
        "too_few_bands",
        "has too few bands; set NBANDS in extra_incar",
        f"{WIKI}NBANDS; {HANDLER}VaspErrorHandler too_few_bands: NBANDS 10 % up",
    ),
    Failure(
        r"ERROR RSPHER|REAL_OPT(LAY)?: internal|SBESSELITER : nicht konvergent",
        "real_space_projectors",
        "could not set up projectors in real space; remove LREAL from extra_incar",
        f"{WIKI}LREAL; {HANDLER}VaspErrorHandler rspher, real_optlay: LREAL = False",
    ),
    Failure(
        r"ZBRENT: fatal|BRIONS problems",
        "line_search",
        "could not find lower energies along its search direction; forces are noisy, or the start "
        "is far from any crystal",
        f"{WIKI}IBRION; {HANDLER}VaspErrorHandler zbrent: EDIFF, NELMIN; brions: POTIM",
    ),
    Failure(
        rf"{GAVE_UP}.*PotimErrorHandler",
        "exploded",
        "rose in energy by more than 1 eV/atom in one step with ever smaller POTIM",
        f"{HANDLER}PotimErrorHandler: POTIM halved, then IBRION = 3",
    ),
    Failure(
        rf"{GAVE_UP}.*PositiveEnergyErrorHandler",
        "positive_energy",
        "came to a positive total energy; atoms are far too close",
        f"{HANDLER}PositiveEnergyErrorHandler: ALGO = Normal, POTIM halved",
    ),
    Failure(
        rf"{GAVE_UP}.*FrozenJobErrorHandler",
        "frozen",
        "printed nothing for longer than frozen_after_s; the file system or the network hangs",
        f"{HANDLER}FrozenJobErrorHandler: ALGO = Normal, or CONTCAR again",
    ),
    Failure(
        rf"{GAVE_UP}.*(UnconvergedElectrons|NonConvergingErrorHandler)",
        "unconverged_scf",
        "did not reach self-consistency with any ALGO and mixing that custodian knows; raise "
        "smearing_ev or max_scf_steps under [dft.vasp]",
        f"{WIKI}ALGO; {HANDLER}UnconvergedErrorHandler, NonConvergingErrorHandler",
    ),
    Failure(
        r"SIGSEGV|[Ss]egmentation fault|SIGBUS|SIGABRT|forrtl: severe|glibc detected",
        "crash",
        "crashed inside VASP; std_err.txt of its last run has its last words",
        "Intel and GNU Fortran's run-time libraries",
    ),
    Failure(
        rf"{ENDED} [1-9]",
        "error",
        "ended with an error that is not in the table; vasp.out of its last run has the message",
        "exit status of VASP",
    ),
    Failure(
        rf"{GAVE_UP}.*VasprunXMLValidator",
        "unreadable_result",
        "left no vasprun.xml that is whole; it was interrupted, or the disk was full",
        "custodian.vasp.validators.VasprunXMLValidator",
    ),
    Failure(
        rf"{GAVE_UP}.*VaspFilesValidator",
        "no_result",
        "wrote no CONTCAR, OSZICAR or OUTCAR; is the command really VASP?",
        "custodian.vasp.validators.VaspFilesValidator",
    ),
    Failure(
        r"(?m)^Traceback \(most recent call last\)",
        "custodian_failed",
        "made custodian itself fail; errors.txt there has the place",
        "Python",
    ),
)

AGAIN = Correction("again, from where it had come", continues="geometry")
# Only what custodian does not mend: it stays within one run of this process.
CORRECTIONS: Mapping[str, tuple[Correction, ...]] = {
    "time_limit": (Correction("goes on from CONTCAR", continues="geometry"),) * 4,
    "killed": (AGAIN,),
    "crash": (AGAIN,),
    "unreadable_result": (AGAIN,),
    "frozen": (AGAIN,),
}
