"""git on the mount: clone, commits, branches and merges by every mount in turn, gc, and `git fsck --full --strict` that finds nothing."""

import os

from common import check, content, elsewhere, main, program, run, same

FILES, COMMITS = 200, 5
IDENTITY = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
}  # fmt: skip


def work(places, _arguments):
    with elsewhere() as directory:
        origin = f"{directory}/origin"
        make_origin(origin)
        git(directory, "clone", "--quiet", f"file://{origin}", str(places[0] / "clone"))
        for n, place in enumerate([*places, places[0]]):
            commit_in(place / "clone", n)
        by_all = [git(place / "clone", "rev-parse", "HEAD") for place in places]
        same(len(set(by_all)), 1, "heads seen by the mounts")
        git(places[-1] / "clone", "gc", "--quiet", "--prune=now")
        for place in places:
            fsck(place / "clone")
        git(places[0] / "clone", "push", "--quiet", "origin", "main:pushed")
        fsck(origin)
    git(places[0], "clone", "--quiet", "clone", "second")
    fsck(places[-1] / "second")
    count = git(places[-1] / "second", "rev-list", "--count", "HEAD").strip()
    return f"{count} commits of {FILES} files through {len(places)} mounts; fsck finds nothing"


def git(where, *arguments):
    return run(program("git"), "-c", "safe.directory=*", *arguments, cwd=str(where), env=os.environ | IDENTITY)


def make_origin(path):
    os.mkdir(path)
    git(path, "init", "--quiet", "--initial-branch=main")
    for n in range(FILES):
        os.makedirs(f"{path}/d{n % 17}", exist_ok=True)
        write(f"{path}/d{n % 17}/f{n}", content(n, 100 + n * 97 % 20_000))
    for n in range(COMMITS):
        write(f"{path}/changing", content(("changing", n), 5000))
        git(path, "add", "--all")
        git(path, "commit", "--quiet", "-m", f"commit {n}")


def commit_in(clone, number):
    """A commit on a branch of its own and one on main, then a merge."""
    git(clone, "checkout", "--quiet", "-b", f"branch{number}")
    for n in range(0, FILES, 7):
        write(f"{clone}/d{n % 17}/f{n}", content((number, n), 3000))
    os.rename(f"{clone}/d1/f1", f"{clone}/d1/tmp")
    os.rename(f"{clone}/d1/tmp", f"{clone}/d1/f1")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "-m", f"on the branch {number}")
    git(clone, "checkout", "--quiet", "main")
    write(f"{clone}/main{number}", b"on main")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "-m", f"on main {number}")
    git(clone, "merge", "--quiet", "-m", f"merge {number}", f"branch{number}")
    same(git(clone, "status", "--porcelain"), "", "git status after the merge")


def fsck(where):
    found = git(where, "fsck", "--full", "--strict", "--no-progress")
    check(not found.strip(), f"git fsck in {where}:\n{found}")


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


main(__doc__, work)
