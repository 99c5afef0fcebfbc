"""dbench: the calls of file server clients, by four of them on each mount at once; none may fail."""

import re
import subprocess

from common import check, main, parser, program

LOADFILE = "/usr/share/dbench/client.txt"


def load(places, arguments):
    command = [program("dbench"), "-c", LOADFILE, "-t", str(arguments.seconds)]
    running = []
    for n, place in enumerate(places):
        directory = place / f"dbench{n}"
        directory.mkdir()
        words = [*command, "-D", str(directory), str(arguments.clients)]
        running.append((words, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)))
    rates = []
    for words, process in running:
        output = process.communicate(timeout=arguments.seconds * 4 + 60)[0]
        found = re.search(r"^Throughput ([0-9.]+) MB/sec", output, re.MULTILINE)
        refused = re.search(r"^\[\d+\] |ERROR", output, re.MULTILINE)
        check(process.returncode == 0 and found and not refused, f"$ {' '.join(words)}\n{output[-3000:]}")
        rates.append(found[1])
    return f"{arguments.clients} clients on each of {len(places)} mounts for {arguments.seconds} s: {', '.join(rates)} MB/s"


made = parser(__doc__)
made.add_argument("--seconds", type=int, default=5)
made.add_argument("--clients", type=int, default=4)
main(__doc__, load, made.parse_args())
