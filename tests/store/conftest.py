from collections.abc import Iterator
from pathlib import Path

import pytest

from fusecas.store.store import Store


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new store; each test that takes it runs on both kinds."""
    made = Store.in_memory() if request.param == "memory" else Store.create(tmp_path)
    with made:
        yield made
