"""fusecas: a versioned workspace that is a real directory.

    import fusecas

    with fusecas.open("project", create=True) as repo:
        result = repo.workspace().run("make")

docs/api.md is the guide. Results and errors (fusecas.results, fusecas.errors) can be had from here, too.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusecas.api import Repo as Repo
    from fusecas.api import Workspace as Workspace
    from fusecas.api import init as init
    from fusecas.api import open_repository as open  # noqa: F401
    from fusecas.errors import *  # noqa: F403
    from fusecas.results import Committed as Committed
    from fusecas.results import Diff as Diff
    from fusecas.results import HistoryEntry as HistoryEntry
    from fusecas.results import LayerInfo as LayerInfo
    from fusecas.results import Missed as Missed
    from fusecas.results import Moved as Moved
    from fusecas.results import Output as Output
    from fusecas.results import Rebuilt as Rebuilt
    from fusecas.results import Renamed as Renamed
    from fusecas.results import RunResult as RunResult
    from fusecas.results import Status as Status

__version__ = "0.1.0"
_FUNCTIONS = {"open": "open_repository", "init": "init"}


def __getattr__(name: str) -> Any:
    """Imported when somebody asks for it: the command line, the daemon and a run's child need little of it."""
    from importlib import import_module

    homes = ("api",) if name in _FUNCTIONS else ("errors", "results", "api") if name[:1].isupper() else ()
    for home in homes:
        module = f"fusecas.{home}"
        found = getattr(import_module(module), _FUNCTIONS.get(name, name), None)
        if getattr(found, "__module__", None) == module:
            globals()[name] = found
            return found
    raise AttributeError(f"module 'fusecas' has no attribute {name!r}")
