"""fio writes blocks with checksums, sequentially, at random, directly and through mmap, and verifies them, by the writing mount and by every other."""

from common import main, program, run

SIZE = "--size=16M"
JOBS = {
    "sequential": ["--rw=write", "--bs=1M", "--ioengine=psync"],
    "random": ["--rw=randwrite", "--bs=4k", "--ioengine=psync"],
    "unaligned": ["--rw=randwrite", "--bsrange=1k-200k", "--bs_unaligned=1", "--ioengine=psync"],
    "direct": ["--rw=randwrite", "--bs=64k", "--ioengine=libaio", "--iodepth=8", "--direct=1"],
    "synced": ["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--fsync=8", "--io_size=2M"],
    "mapped": ["--rw=randwrite", "--bs=4k", "--ioengine=mmap"],
    "mixed": ["--rw=randrw", "--bs=16k", "--ioengine=psync", "--numjobs=2"],
}
VERIFY = ["--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--minimal", "--verify_state_save=0"]


def verify_all(places, _arguments):
    fio = program("fio")
    for name, options in JOBS.items():
        job = [fio, f"--name={name}", SIZE, *VERIFY, *options]
        run(*job, "--do_verify=1", f"--directory={places[0]}")
        # fio's record of what it wrote is not kept, so that a reader reads all blocks: only jobs that write all of them once can be verified so.
        if name in ("sequential", "random", "direct", "mapped"):
            for place in places:
                run(*job, "--verify_only", f"--directory={place}")
    return f"{len(JOBS)} jobs through {len(places)} mounts"


main(__doc__, verify_all)
