"""scripts/bench [NAME…] [--rounds N] [--only PART] [--json FILE]

A benchmark is a module tests/bench/NAME.py with PARTS: a dict from a part's name to a function of a Bench. Each part
measures beside a reference in the same run, in interleaved rounds; what counts is the median of the rounds' ratios.
"""

import argparse
import json
import signal
import sys
from importlib import import_module
from pathlib import Path

from tests.bench.measure import Bench, remove_leftovers

NO_BENCHMARKS = ("__main__", "measure", "memory", "noop_mount", "peers", "recovery")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], metavar="PART")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--scratch", type=Path, default=Path("/var/tmp"), help="a folder on the disk to measure on")
    options = parser.parse_args()
    known = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NO_BENCHMARKS)
    if not options.names:
        print("\n".join(known))
        return 0
    for name in options.names:
        if name not in known:
            print(f"no benchmark {name!r}: {', '.join(known)}", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # as Ctrl-C: mounts are taken away
    for folder in remove_leftovers(options.scratch):
        print(f"removed {folder}, which was left by one that was killed", file=sys.stderr)
    results = {}
    for name in options.names:
        parts = import_module(f"tests.bench.{name}").PARTS
        for part, function in parts.items():
            if not options.only or part in options.only:
                with Bench(f"{name}: {part}", options.rounds, options.scratch) as bench:
                    function(bench)
                    results[f"{name}.{part}"] = bench.figures
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
