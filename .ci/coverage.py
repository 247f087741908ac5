#!/usr/bin/python3
"""Lines that tests ran, crate by crate, from an lcov file. Lines of tests do not count."""

import os
import re
import sys
from collections import defaultdict

CRATES = {
    "backup-core": "crates/backup-core/src/",
    "backup-sqlite": "crates/backup-sqlite/src/",
    "backup-files": "crates/backup-files/src/",
    "backup-qdrant": "crates/backup-qdrant/src/",
    "backup-redis": "crates/backup-redis/src/",
    "backup-neo4j": "crates/backup-neo4j/src/",
    "backup-conformance": "crates/backup-conformance/src/",
    "backup-kit": "src/",
    "backup-kit-cli": "examples/cli/src/",
}
TEST_FILE = re.compile(r"#\[cfg\(test\)\]\n(?:pub\(\w+\) )?mod (\w+);")
TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\nmod \w+ \{")


def test_files(folder):
    """The files of modules that exist in tests only."""
    found = set()
    for path, _, names in os.walk(folder):
        for name in names:
            text = open(os.path.join(path, name)).read()
            inside = path if name in ("mod.rs", "lib.rs", "main.rs") else os.path.join(path, name[:-3])
            for module in TEST_FILE.findall(text):
                found.add(os.path.join(inside, module + ".rs"))
                found.add(os.path.join(inside, module) + "/")
    return tuple(found)


def product_lines(path):
    """How many lines stand before the tests at the end of a file."""
    text = open(path).read()
    tests = TEST_MODULE.search(text)
    return text.count("\n", 0, tests.start()) if tests else sys.maxsize


def main():
    lcov, least = sys.argv[1], float(sys.argv[2])
    tests = {crate: test_files(folder) for crate, folder in CRATES.items()}
    lines = defaultdict(lambda: [0, 0])
    files = defaultdict(list)
    for record in open(lcov).read().split("end_of_record"):
        source = re.search(r"^SF:(.*)", record, re.M)
        if not source:
            continue
        path = os.path.relpath(source[1])
        crate = next((c for c, folder in CRATES.items() if path.startswith(folder)), None)
        if crate is None or path.startswith(tests[crate]):
            continue
        last = product_lines(path)
        hits = [int(n) > 0 for line, n in re.findall(r"^DA:(\d+),(\d+)", record, re.M) if int(line) <= last]
        lines[crate][0] += sum(hits)
        lines[crate][1] += len(hits)
        files[crate].append((len(hits) - sum(hits), len(hits), path))
    if len(lines) < len(CRATES) - 1:
        sys.exit(f"there are figures of {sorted(lines)} only")

    low = []
    print(f"{'crate':20} {'lines':>6} {'run':>6} {'in 100':>7}   most of what is not run")
    for crate in CRATES:
        run, all_of = lines[crate]
        if not all_of:
            print(f"{crate:20} {'nothing of its own':>21}")
            continue
        share = 100 * run / all_of
        worst = ", ".join(f"{os.path.basename(path)} {missed}" for missed, _, path in sorted(files[crate])[:-4:-1])
        print(f"{crate:20} {all_of:6} {run:6} {share:7.1f}   {worst}")
        if share < least:
            low.append(crate)
    if low:
        sys.exit(f"less than {least:g} lines in 100 are run by tests: {', '.join(low)}")


main()
