"""MPI-IO through MPICH: four ranks write one file together, ranks 0 and 1 by the first mount, 2 and 3 by the last, and read each other's blocks.

`--launch COMMAND` starts the ranks otherwise than by mpiexec, as in `--launch "flux run -n4 -N2"`.
"""

import shlex
from pathlib import Path

from common import check, elsewhere, main, parser, program, run, same

SOURCE = Path(__file__).resolve().parents[2] / "mpi/shared_file.c"
RANKS = 4


def write_together(places, arguments):
    with elsewhere() as directory:
        binary = f"{directory}/shared_file"
        run(program("mpicc.mpich"), "-O2", "-o", binary, SOURCE)
        launch = shlex.split(arguments.launch) if arguments.launch else [program("mpiexec.mpich"), "-n", str(RANKS)]
        output = run(*launch, binary, *dict.fromkeys(map(str, places)))
    for rank in range(RANKS):
        check(f"rank {rank} of {RANKS} by" in output, f"rank {rank} does not report: {output}")
    for kind in ("contiguous", "interleaved"):
        one, other = ((places[n % len(places)] / f"{kind}-{how}").read_bytes() for n, how in enumerate(("enable", "disable")))
        check(one == other, f"{kind}: collective and independent writes left different files")
        same(len(one), RANKS * 16 * 100_003, f"{kind}: size of the file")
    return f"{RANKS} ranks through {len(places)} mounts, collective and with data sieving"


made = parser(__doc__)
made.add_argument("--launch", metavar="COMMAND")
main(__doc__, write_together, made.parse_args())
