"""The process that bench `store` measures: puts a stream of so many bytes, prints the most RssAnon that it had.

python -m tests.bench.stream REPOSITORY BYTES
"""

import random
import sys
from pathlib import Path
from typing import Any

from fusecas.store.repository import Repository
from tests.bench.measure import anonymous_memory

BLOCK = 1 << 20


class Stream:
    """Bytes that repeat nothing; tells how much memory the process has while it is read."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.most = anonymous_memory()
        self._block = bytearray(random.Random(1).randbytes(BLOCK))

    def read(self, size: int) -> bytes:
        self.most = max(self.most, anonymous_memory())
        size = min(size, self.left, BLOCK)
        self.left -= size
        for at in range(0, BLOCK, 4096):
            self._block[at : at + 8] = self.left.to_bytes(8, "big")
        return bytes(self._block[:size])


def main() -> None:
    stream: Any = Stream(int(sys.argv[2]))
    with Repository.open(Path(sys.argv[1])) as repository, repository.store.session() as session:
        session.put_stream(stream)
        session.keep()
    print(stream.most)


if __name__ == "__main__":
    main()
