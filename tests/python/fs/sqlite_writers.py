"""sqlite with a writer on each mount (journal mode delete): no row is lost, none is there twice, and integrity_check finds nothing."""

import multiprocessing
import sqlite3

from common import check, main, parser, same

BUSY_S = 120
WRITERS_MIN = 2


def write_by_all(places, arguments):
    with connect(places[0]) as database:
        same(database.execute("PRAGMA journal_mode = DELETE").fetchone(), ("delete",), "journal mode")
        database.execute("CREATE TABLE rows (writer INTEGER, n INTEGER, text TEXT, UNIQUE (writer, n))")
        database.execute("CREATE TABLE counter (value INTEGER)")
        database.execute("INSERT INTO counter VALUES (0)")
    writers = max(WRITERS_MIN, len(places))
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=insert, args=(places[n % len(places)], n, arguments.rows)) for n in range(writers)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    same([process.exitcode for process in running], [0] * writers, "exit codes of the writers")
    for place in places:
        verify(place, writers, arguments.rows)
    return f"{writers} writers of {arguments.rows} rows through {len(places)} mounts"


def connect(place):
    # Transactions are begun by hand, so that each is exactly what is written here.
    return sqlite3.connect(place / "database", timeout=BUSY_S, isolation_level=None)


def insert(place, writer, rows):
    database = connect(place)
    for n in range(rows):
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO rows VALUES (?, ?, ?)", (writer, n, f"row {n} of {writer} " * (n % 40)))
        database.execute("UPDATE counter SET value = value + 1")
        if n % 10 == 9:
            # A reader of its own, in the middle of the transaction, must see only what was committed.
            with_counter, counted = committed(place)
            check(with_counter == counted, f"a reader sees {counted} rows and the counter at {with_counter}")
        database.execute("COMMIT")
    database.close()


def committed(place):
    reader = connect(place)
    seen = reader.execute("SELECT (SELECT value FROM counter), (SELECT COUNT(*) FROM rows)").fetchone()
    reader.close()
    return seen


def verify(place, writers, rows):
    database = connect(place)
    same(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)], f"integrity_check by {place}")
    same(database.execute("SELECT value FROM counter").fetchone(), (writers * rows,), "the counter")
    found = database.execute("SELECT writer, n, text FROM rows ORDER BY writer, n").fetchall()
    expected = [(writer, n, f"row {n} of {writer} " * (n % 40)) for writer in range(writers) for n in range(rows)]
    check(found == expected, f"{len(found)} rows by {place}, {len(expected)} inserted, or their texts differ")
    database.close()


made = parser(__doc__)
made.add_argument("--rows", type=int, default=300, help="of each writer")
main(__doc__, write_by_all, made.parse_args())
