"""The processes of bench `workspace`'s recovery.

python -m tests.bench.recovery write REPOSITORY RECORDS: do so much, uncommitted, and die.
python -m tests.bench.recovery open REPOSITORY: how many seconds, and how many of the processor, it takes
to have it all again.
"""

import os
import stat
import sys
import time
from pathlib import Path

from fusecas.store.repository import Repository
from fusecas.workspace.workspace import Workspace

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
PER_FILE, IN_A_FOLDER = 5, 1000


def write(workspace: Workspace, records: int) -> None:
    """As programs do: files are made, written, given a mode, and renamed; each tenth is removed."""
    overlay = workspace.overlay
    folder = 0
    for at in range(records // PER_FILE):
        if at % IN_A_FOLDER == 0:
            folder = overlay.make(0, b"folder-%d" % at, FOLDER, 0o22, 0, 0)[0]
        ino = overlay.make(folder, b"temporary-%d" % at, FILE, 0o22, 0, 0)[0]
        overlay.write(ino, 0, b"what a small file holds")
        overlay.write(ino, 23, b", and more")
        overlay.setattr(ino, mode=0o600)
        if at % 10:
            overlay.rename(folder, b"temporary-%d" % at, folder, b"file-%d.txt" % at, False, True)
        else:
            overlay.unlink(folder, b"temporary-%d" % at)
        overlay.forget(ino, 1)


def main() -> None:
    act, place, *rest = sys.argv[1:]
    repository = Repository.open(Path(place))
    start, used = time.perf_counter(), time.process_time()
    workspace = Workspace(repository)
    if act == "open":
        print(time.perf_counter() - start, time.process_time() - used)
    else:
        write(workspace, int(rest[0]))
        workspace.overlay.sync()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
