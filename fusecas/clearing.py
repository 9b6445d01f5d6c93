"""Taking a repository away: it is put aside under another name, so that a slip can be made good."""

import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from fusecas import starting
from fusecas.client import NoDaemon
from fusecas.errors import InUse, Refused
from fusecas.store.adopted import adopted_folder
from fusecas.store.durable import sync_folder
from fusecas.store.repository import Repository


def set_aside(folder: Path, *, purge: bool = False) -> Path | None:
    """It is unmounted, and renamed: where it is now; None if it was deleted for good (`purge`). InUse while somebody is
    in it; Refused if a folder has its files only here, since it was adopted."""
    _refuse_adopted(folder)
    with suppress(NoDaemon):
        starting.end(folder)
    with Repository.open(folder) as repository, repository.held_briefly():  # nobody mounts it meanwhile
        _refuse_mounts_in(folder)
        aside = _free_name(folder)
        os.rename(folder, aside)
        sync_folder(folder.parent)
    if not purge:
        return aside
    shutil.rmtree(aside)
    return None


def _refuse_adopted(folder: Path) -> None:
    """Before anything is unmounted: a pointer to nothing would be left of the adopted folder."""
    adopted = adopted_folder(folder)
    if adopted is not None:
        raise Refused(
            f"{adopted} was adopted: without {folder} nothing of it would be there",
            hint=f"fusecas release {adopted} gives it back first",
        )


def _refuse_mounts_in(folder: Path) -> None:
    """Whatever somebody has mounted there would be moved, or deleted, as well."""
    from fusecas.mount.device import mount_lines

    for place, *_ in mount_lines():
        if Path(os.fsdecode(place)).is_relative_to(folder.resolve()):
            raise InUse(f"{os.fsdecode(place)} is mounted", hint=f"umount {os.fsdecode(place)}")


def _free_name(folder: Path) -> Path:
    name = f"{folder.name}.removed-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = (folder.with_name(name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(each for each in names if not os.path.lexists(each))
