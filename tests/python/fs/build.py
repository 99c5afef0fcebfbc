"""Building on the mount: a C project with make -j2 and a Rust project with cargo, changed and built again; nothing is built twice, nothing is missed."""

import os
import re

from common import check, main, parser, program, run, same

UNITS = 40


def build(places, arguments):
    parts = [build_c(places)]
    parts.append(build_rust(places) if arguments.rust else "Rust left out")
    return "; ".join(parts)


def build_c(places):
    first, last = places[0] / "c", places[-1] / "c"
    make_c(first)
    same(compiled(make(first)), UNITS + 1, "units compiled at first")
    value = int(run(last / "program"))
    same(value, sum(range(UNITS)), "what the program says")
    same(compiled(make(last)), 0, "units compiled again though nothing changed")
    write(last / "unit7.c", unit(7, 1000))
    same(compiled(make(first)), 1, "units compiled after one was changed by another mount")
    same(int(run(last / "program")), value - 7 + 1000, "what the program says then")
    write(first / "common.h", "#define SCALE 2\n")
    same(compiled(make(last)), UNITS + 1, "units compiled after the header was changed")
    same(int(run(first / "program")), 2 * (value - 7 + 1000), "what the program says at last")
    make(last, "clean")
    same(sorted(name for name in os.listdir(first) if name.endswith(".o")), [], "objects after make clean")
    return f"C: {UNITS} units"


def make_c(directory):
    directory.mkdir()
    write(directory / "common.h", "#define SCALE 1\n")
    for n in range(UNITS):
        write(directory / f"unit{n}.c", unit(n, n))
    declared = "\n".join(f"int unit{n}(void);" for n in range(UNITS))
    total = " + ".join(f"unit{n}()" for n in range(UNITS))
    write(
        directory / "main.c",
        f'#include <stdio.h>\n#include "common.h"\n{declared}\nint main(void) {{ printf("%d\\n", SCALE * ({total})); return 0; }}\n',
    )
    objects = " ".join(["main.o", *(f"unit{n}.o" for n in range(UNITS))])
    write(directory / "Makefile", f"program: {objects}\n\t$(CC) -o $@ $^\n%.o: %.c common.h\n\t$(CC) -O1 -c -o $@ $<\nclean:\n\trm -f *.o program\n")


def unit(number, value):
    return f'#include "common.h"\nint unit{number}(void) {{ return {value}; }}\n'


def make(directory, *targets):
    return run(program("make"), "-j2", *targets, cwd=str(directory), env=os.environ | {"MAKEFLAGS": ""})


def compiled(output):
    return len(re.findall(r" -c -o ", output))


def build_rust(places):
    first, last = places[0] / "rust", places[-1] / "rust"
    make_rust(first)
    cargo(first, "build")
    same(run(last / "target/debug/hello"), "42\n", "what the program says")
    check("Compiling" not in cargo(last, "build"), "cargo compiled again though nothing changed")
    write(last / "src/part.rs", "pub fn answer() -> u32 { 43 }\n")
    check("Compiling" in cargo(first, "build"), "cargo saw no change made by another mount")
    same(cargo(last, "run", "--quiet"), "43\n", "what the program says after a change")
    check("1 passed" in cargo(last, "test"), "cargo test")
    return "Rust: built, changed, tested"


def make_rust(directory):
    (directory / "src").mkdir(parents=True)
    write(directory / "Cargo.toml", '[package]\nname = "hello"\nversion = "0.1.0"\nedition = "2021"\n\n[workspace]\n')
    write(directory / "src/part.rs", "pub fn answer() -> u32 { 42 }\n")
    write(
        directory / "src/main.rs",
        'mod part;\n\nfn main() {\n    println!("{}", part::answer());\n}\n\n#[test]\nfn answers() {\n    assert!(part::answer() > 41);\n}\n',
    )


def cargo(directory, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO", "RUSTFLAGS", "RUSTC"))}
    # What cargo itself keeps stays where it is; the project and its target directory are on the mount.
    kept = {name: os.environ[name] for name in ("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN") if name in os.environ}
    return run(program("cargo"), *arguments, "--offline", cwd=str(directory), env=environment | kept)


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


made = parser(__doc__)
made.add_argument("--no-rust", dest="rust", action="store_false")
main(__doc__, build, made.parse_args())
