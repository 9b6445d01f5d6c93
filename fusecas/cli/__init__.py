"""The command line: parses, calls the library, prints. Each file here holds a group of verbs.

What a verb does not need is not imported: `fusecas head` must start fast.
"""

import gc
import os
import sys
from collections.abc import Sequence

ALLOCATIONS_BEFORE_COLLECTION = 100_000
INTERRUPTED = 130
READER_IS_GONE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. No traceback leaves here for what a user or a machine did."""
    # A collection while modules load, and one over all of them at exit, cost a tenth of the time of a short command.
    gc.set_threshold(ALLOCATIONS_BEFORE_COLLECTION)
    _occupy_standard_descriptors()
    try:
        from fusecas.cli.program import run

        return run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `fusecas log | head`: nothing more can be said, not even when the interpreter flushes at exit.
        drop_output()
        return READER_IS_GONE
    finally:
        gc.freeze()


def _occupy_standard_descriptors() -> None:
    """A store opened as descriptor 2, because that was closed, would get what is said to stderr."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def drop_output(errors: bool = False) -> None:
    """What is still to be written to stdout goes nowhere; to stderr, too, if that is full as well."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr) if errors else (sys.stdout,):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
