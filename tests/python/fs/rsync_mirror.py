"""rsync -aHAX --delete mirrors a tree onto the mount; a second run finds nothing to do, by every mount and by checksums too."""

import os
import shutil

from common import check, elsewhere, main, program, run
from tree import differences, make_tree, snapshot

# A window of -1 has it compare nanoseconds too.
MIRROR = ["-aHAX", "--sparse", "--delete", "--numeric-ids", "--modify-window=-1"]


def mirror(places, _arguments):
    rsync = program("rsync")
    with elsewhere() as directory:
        source = os.path.join(directory, "source")
        expected = snapshot(make_tree(places[0] / "made"))
        # The source lies on another filesystem, so that it is not the mount that is compared with itself.
        run(rsync, *MIRROR, f"{places[0]}/made/", f"{source}/")
        same_tree(expected, source, "the tree brought out")
        run(rsync, *MIRROR, f"{source}/", f"{places[0]}/mirror/")
        finds_nothing(rsync, source, places)
        change(source)
        run(rsync, *MIRROR, f"{source}/", f"{places[-1]}/mirror/")
        finds_nothing(rsync, source, places)
        changed = snapshot(source)
        for place in places:
            same_tree(changed, place / "mirror", f"the mirror by {place}")
    return f"{len(changed[0])} entries mirrored, changed and mirrored again"


def same_tree(expected, root, what):
    found = differences(expected, snapshot(root))
    check(not found, f"{what}:\n{found}")


def finds_nothing(rsync, source, places):
    for place in places:
        for how in ([], ["--checksum"]):
            found = run(rsync, *MIRROR, *how, "--dry-run", "--itemize-changes", f"{source}/", f"{place}/mirror/")
            check(not found.strip(), f"rsync {' '.join(how)} found by {place}:\n{found}")


def change(source):
    """What a day leaves behind: files changed, added, removed, renamed; a file where a directory was, and the reverse."""
    with open(f"{source}/d0/file3", "r+b") as file:
        file.write(b"changed in place")
    os.rename(f"{source}/d1/file7", f"{source}/d2/moved")
    shutil.rmtree(f"{source}/level0")
    with open(f"{source}/level0", "wb") as file:
        file.write(b"a file where a directory was")
    os.unlink(f"{source}/fifo")
    os.mkdir(f"{source}/fifo")
    os.unlink(f"{source}/names/.hidden")
    os.setxattr(f"{source}/d0/file3", "user.colour", b"red")
    os.chmod(f"{source}/d2", 0o700)


main(__doc__, mirror)
