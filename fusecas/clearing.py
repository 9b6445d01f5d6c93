"""Taking a repository away: it is put aside under another name, so that a slip can be made good."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from fusecas.store.repository import Repository, sync_folder


def set_aside(folder: Path, *, purge: bool = False) -> Path | None:
    """Where it is now; None if it was deleted for good (`purge`). InUse while it is mounted."""
    with Repository.open(folder) as repository, repository.served():  # nobody mounts it meanwhile
        aside = _free_name(folder)
        os.rename(folder, aside)
    sync_folder(folder.parent)
    if not purge:
        return aside
    shutil.rmtree(aside)
    return None


def _free_name(folder: Path) -> Path:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    names = (folder.with_name(f"{folder.name}.removed-{now}{more}") for more in ("", *(f"-{n}" for n in range(2, 100))))
    return next(each for each in names if not os.path.lexists(each))
