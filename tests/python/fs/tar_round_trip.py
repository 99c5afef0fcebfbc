"""GNU tar packs and unpacks a tree with xattrs, ACLs, hard links and holes: what comes out is what went in, by every mount."""

import os

from common import check, main, program, run
from tree import HOLE, differences, make_tree, snapshot

KEEP = ["--xattrs", "--xattrs-include=*", "--acls", "--format=posix", "-S", "--numeric-owner"]


def round_trip(places, _arguments):
    tar = program("tar")
    first, last = places[0], places[-1]
    expected = snapshot(make_tree(first / "tree"))
    run(tar, *KEEP, "-cf", last / "tree.tar", "-C", last, "tree")
    (first / "out").mkdir()
    run(tar, *KEEP, "--same-permissions", "-xf", first / "tree.tar", "-C", first / "out")
    for place in places:
        found = differences(expected, snapshot(place / "out/tree"))
        check(not found, f"the tree that came out, by {place}:\n{found}")
    run(tar, *KEEP, "--compare", "-f", last / "tree.tar", "-C", last / "out")
    for name in ("tree/sparse", "out/tree/sparse"):
        taken = os.stat(last / name).st_blocks * 512
        check(taken < HOLE, f"{name} takes {taken} bytes, and is holes but for 11")
    check(os.stat(last / "tree.tar").st_size < HOLE, "tar found the holes")
    return f"{len(expected[0])} entries packed, unpacked and compared"


main(__doc__, round_trip)
