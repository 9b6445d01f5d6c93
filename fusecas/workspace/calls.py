"""What can be asked of live workspaces: through the daemon's socket, or by a command where no daemon runs.

Parameters and results are JSON (docs/protocol.md).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from fusecas.errors import UsageError
from fusecas.parameters import REQUIRED, checked
from fusecas.store import revisions
from fusecas.store.heads import Head
from fusecas.store.ids import ObjectId, StateId, TimesId
from fusecas.store.snapshot import Snapshot
from fusecas.workspace import going
from fusecas.workspace.mover import Deed, Moved
from fusecas.workspace.reverting import Moving, nothing_held, revert
from fusecas.workspace.status import as_json
from fusecas.workspace.status import status as status_of
from fusecas.workspace.target import Target
from fusecas.workspace.workspace import Workspace
from fusecas.workspace.workspaces import Workspaces

Parameters = Mapping[str, Any]
Call = Callable[[Workspaces, Parameters], dict[str, Any]]
MOST_OWNERS = (1 << 32) - 1
ID_DIGITS = 64
ID = re.compile(f"[0-9a-f]{{{ID_DIGITS}}}")
WHO: dict[str, tuple[type, Any]] = {"argv": (list, []), "actor": (str, "")}
WHERE: dict[str, tuple[type, Any]] = {"ws": (str, None)}
MOVED: dict[str, tuple[type, Any]] = {"wait": (bool, False), **WHERE, **WHO}
"""Of what moves a workspace; that it waits for a command that runs there is for the daemon to see to."""


def status(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace = _workspace(workspaces, checked(parameters, **WHERE))
    found = as_json(workspace.name, status_of(workspace))
    return {"mountpoint": None, "pid": None, "failed": workspace.overlay.failed, **found}


def commit(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, message=(str, None), **MOVED)
    done = _workspace(workspaces, given).commit(given["message"], deed_of(given))
    return {
        "layer": None if done.layer is None else done.layer.hex(),
        "state": done.state.hex(),
        "new_objects": done.new_objects,
        "stored_bytes": done.stored_bytes,
    }


def seal(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace = _workspace(workspaces, checked(parameters, **WHERE))
    return {"workspace": workspace.name, "state": workspace.seal().hex()}


def checkout(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, ref=(str, REQUIRED), paths=(list, None), touch=(bool, False), **MOVED)
    workspace = _workspace(workspaces, given)
    paths = None if given["paths"] is None else [path_from_root(each) for each in given["paths"]]

    def find(snapshot: Snapshot, head: Head) -> Target:
        found = revisions.resolve(snapshot, given["ref"], workspace.name)
        if paths is None:
            return going.whole(snapshot, head, found, touch=given["touch"])
        return going.parts(snapshot, head, found, paths)

    return _moved(workspace, workspace.checkout(find, deed_of(given)))


def undo(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace, steps, deed = _steps(workspaces, parameters)
    return _moved(workspace, workspace.undo(steps, deed))


def redo(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace, steps, deed = _steps(workspaces, parameters)
    return _moved(workspace, workspace.redo(steps, deed))


def put_layer(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    """A state that the caller has stored (and still holds) becomes a layer on the head."""
    given = checked(
        parameters,
        verb=(str, REQUIRED),
        state=(str, REQUIRED),
        times=(str, None),
        owner=(list, REQUIRED),
        message=(str, None),
        **MOVED,
    )
    workspace = _workspace(workspaces, given)
    owner = [each for each in given["owner"] if type(each) is int and 0 <= each < MOST_OWNERS]
    if len(owner) != 2 or len(given["owner"]) != 2:
        raise UsageError("the parameter owner is [uid, gid]")
    state = StateId(_id(given["state"]))
    times = None if given["times"] is None else TimesId(_id(given["times"]))
    moved = workspace.put_layer(given["verb"], state, times, (owner[0], owner[1]), given["message"], deed_of(given))
    return _moved(workspace, moved)


def fork(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, name=(str, REQUIRED), **WHERE, **WHO)
    made = workspaces.fork(given["name"], given["ws"] or workspaces.default, deed_of(given))
    return {"workspace": given["name"], "id": made.hex()}


def ws_create(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, name=(str, REQUIRED), **WHO)
    made = workspaces.create(given["name"], deed_of(given))
    return {"workspace": given["name"], "id": made.hex()}


def ws_rm(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, name=(str, REQUIRED), force=(bool, False), **WHO)
    workspaces.remove(given["name"], deed_of(given), force=given["force"])
    return {"workspace": given["name"]}


def op_revert(workspaces: Workspaces, parameters: Parameters, moving: Moving = nothing_held) -> dict[str, Any]:
    given = checked(parameters, operation=(int, REQUIRED), **WHO)
    done = revert(workspaces, given["operation"], deed_of(given), moving)
    fields = {} if done.moved is None or done.workspace is None else _moved_fields(done.workspace, done.moved)
    return {
        "operation": done.operation.number,
        "verb": done.operation.verb,
        "refs": [move.ref for move in done.operation.moves],
        "workspace": done.workspace,
        "removed_workspace": done.removed,
        "restored_workspace": done.restored,
        **fields,
    }


CALLS: dict[str, Call] = {
    "status": status,
    "commit": commit,
    "seal": seal,
    "checkout": checkout,
    "undo": undo,
    "redo": redo,
    "put_layer": put_layer,
    "fork": fork,
    "ws.create": ws_create,
    "ws.rm": ws_rm,
    "op.revert": op_revert,
}
MOVING = ("commit", "checkout", "undo", "redo", "put_layer")
"""What can't be done while a command is running there."""


# ---- parameters


def _workspace(workspaces: Workspaces, given: Parameters) -> Workspace:
    return workspaces.get(given["ws"] or workspaces.default)


def _steps(workspaces: Workspaces, parameters: Parameters) -> tuple[Workspace, int, Deed]:
    given = checked(parameters, steps=(int, 1), **MOVED)
    if given["steps"] < 1:
        raise UsageError("the parameter steps is 1 or more")
    return _workspace(workspaces, given), given["steps"], deed_of(given)


def deed_of(given: Parameters) -> Deed:
    return Deed(tuple(str(each).encode(errors="surrogateescape") for each in given["argv"]), given["actor"])


def _id(text: str) -> ObjectId:
    if not ID.fullmatch(text):
        raise UsageError(f"{text[:ID_DIGITS]!r} is no id: that has {ID_DIGITS} hex digits")
    return ObjectId(bytes.fromhex(text))


def path_from_root(given: Any) -> bytes:
    """From the workspace's root; that itself is ""."""
    path = str(given).encode(errors="surrogateescape")
    if path and any(each in (b"", b".", b"..") for each in path.split(b"/")):
        raise UsageError(f"{given!r} is no path from the workspace's root", hint="such as src/main.c, or '' for all")
    return path


def _moved(workspace: Workspace, moved: Moved) -> dict[str, Any]:
    return _moved_fields(workspace.name, moved)


def _moved_fields(name: str, moved: Moved) -> dict[str, Any]:
    return {
        "workspace": name,
        "layer": None if moved.layer is None else moved.layer.hex(),
        "state": moved.state.hex(),
        "moved": moved.operation is not None,
        "added": moved.added,
        "removed": moved.removed,
        "changed": moved.changed,
        "aside": moved.aside,
        "uncommitted": moved.uncommitted,
        "made": moved.made,
    }
