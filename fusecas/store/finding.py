"""Where a repository is, from some place in it, beside it, or in its mount. Imports nothing of the store: it is asked
before each call."""

from pathlib import Path

from fusecas.errors import Refused, RepositoryNotFound
from fusecas.store.adopted import is_before, is_repository, repository_of

FOLDER = ".fusecas"


def find(start: Path) -> Path:
    """The repository's folder that is nearest, here or upward; in a mount, the one that is mounted; of an adopted
    folder, the one beside it."""
    for place in (start, *start.parents):
        for folder in (place / FOLDER, place / FOLDER / "repo"):  # the second one if we are in its mount
            if is_repository(folder):
                return folder.resolve()
        if (found := repository_of(place)) is not None:
            return found.resolve()
        if (folder_now := is_before(place)) is not None:
            raise Refused(
                f"{place} is {folder_now} as it was before it was adopted",
                hint=f"cd {folder_now} goes to the workspace",
            )
    raise RepositoryNotFound(f"no repository in {start} or above", hint="fusecas init makes one here")
