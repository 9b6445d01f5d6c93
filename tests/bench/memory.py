"""The processes whose memory bench `store` measures: what RssAnon was before, and at most.

python -m tests.bench.memory put REPOSITORY BYTES
python -m tests.bench.memory gc REPOSITORY
"""

import random
import sys
from pathlib import Path
from typing import Any

from fusecas.store.gc import collect
from fusecas.store.repository import Repository
from tests.bench.measure import Watch, anonymous_memory

BLOCK = 1 << 20


class Stream:
    """Bytes that repeat nothing."""

    def __init__(self, size: int) -> None:
        self.left = size
        self._block = bytearray(random.Random(1).randbytes(BLOCK))

    def read(self, size: int) -> bytes:
        size = min(size, self.left, BLOCK)
        self.left -= size
        for at in range(0, BLOCK, 4096):
            self._block[at : at + 8] = self.left.to_bytes(8, "big")
        return bytes(self._block[:size])


def main() -> None:
    act, place, *rest = sys.argv[1:]
    with Repository.open(Path(place)) as repository:
        before = anonymous_memory()
        with Watch() as watch:
            if act == "gc":
                collect(repository.store, min_age=0.0)
            else:
                stream: Any = Stream(int(rest[0]))
                with repository.store.session() as session:
                    session.put_stream(stream)
                    session.keep()
    print(before, watch.most)


if __name__ == "__main__":
    main()
