"""What can be asked of live workspaces: through the daemon's socket, or by a command where no daemon runs.

Parameters and results are JSON (docs/protocol.md); paths are text with surrogates for bytes that aren't UTF-8.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from fusecas.errors import UsageError
from fusecas.store import revisions
from fusecas.store.ids import ObjectId, StateId, TimesId
from fusecas.store.snapshot import Snapshot
from fusecas.workspace.status import status as status_of
from fusecas.workspace.target import Target
from fusecas.workspace.workspace import Deed, Moved, Workspace
from fusecas.workspace.workspaces import Workspaces

Parameters = Mapping[str, Any]
Call = Callable[[Workspaces, Parameters], dict[str, Any]]


def status(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace = _workspace(workspaces, parameters)
    changes = status_of(workspace)
    return {
        "workspace": workspace.name,
        "changes": [[each.letter, os.fsdecode(each.path), each.is_directory] for each in changes],
    }


def changes(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    overlay = _workspace(workspaces, parameters).overlay
    events = overlay.events(_number(parameters, "since", 0))
    paths = None if events is None else [[number, os.fsdecode(path)] for number, path in events]
    return {"last": overlay.event, "changes": paths}


def commit(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    done = _workspace(workspaces, parameters).commit(_text_or_none(parameters, "message"), _deed(parameters))
    return {
        "layer": None if done.layer is None else done.layer.hex(),
        "state": done.state.hex(),
        "new_objects": done.new_objects,
        "stored_bytes": done.stored_bytes,
    }


def checkout(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace, ref = _workspace(workspaces, parameters), _text(parameters, "ref")

    def find(snapshot: Snapshot) -> Target:
        found = revisions.resolve(snapshot, ref, workspace.name)
        return Target(found.layer, found.state, found.times)

    return _moved(workspace, workspace.checkout(find, _deed(parameters)))


def undo(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace = _workspace(workspaces, parameters)
    return _moved(workspace, workspace.undo(_number(parameters, "steps", 1), _deed(parameters)))


def redo(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    workspace = _workspace(workspaces, parameters)
    return _moved(workspace, workspace.redo(_number(parameters, "steps", 1), _deed(parameters)))


def put_layer(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    """A state that the caller has stored (and still holds) becomes a layer on the head."""
    uid, gid = parameters["owner"]
    times = _text_or_none(parameters, "times")
    workspace = _workspace(workspaces, parameters)
    moved = workspace.put_layer(
        _text(parameters, "verb"),
        StateId(ObjectId(bytes.fromhex(_text(parameters, "state")))),
        None if times is None else TimesId(ObjectId(bytes.fromhex(times))),
        (int(uid), int(gid)),
        _text_or_none(parameters, "message"),
        _deed(parameters),
    )
    return _moved(workspace, moved)


def fork(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    made = workspaces.fork(_text(parameters, "name"), _name(workspaces, parameters), _deed(parameters))
    return {"workspace": made.name, "id": made.id.hex()}


def ws_create(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    made = workspaces.create(_text(parameters, "name"), _deed(parameters))
    return {"workspace": made.name, "id": made.id.hex()}


def ws_rm(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    name = _text(parameters, "name")
    workspaces.remove(name, _deed(parameters), force=bool(parameters.get("force")))
    return {"workspace": name}


CALLS: dict[str, Call] = {
    "status": status,
    "changes": changes,
    "commit": commit,
    "checkout": checkout,
    "undo": undo,
    "redo": redo,
    "put_layer": put_layer,
    "fork": fork,
    "ws.create": ws_create,
    "ws.rm": ws_rm,
}


# ---- parameters


def _name(workspaces: Workspaces, parameters: Parameters) -> str:
    return _text(parameters, "ws") if "ws" in parameters else workspaces.default


def _workspace(workspaces: Workspaces, parameters: Parameters) -> Workspace:
    return workspaces.get(_name(workspaces, parameters))


def _deed(parameters: Parameters) -> Deed:
    argv = parameters.get("argv", [])
    return Deed(tuple(str(each).encode(errors="surrogateescape") for each in argv), str(parameters.get("actor", "")))


def _text(parameters: Parameters, name: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str):
        raise UsageError(f"the parameter {name!r} must be a text")
    return value


def _text_or_none(parameters: Parameters, name: str) -> str | None:
    return None if parameters.get(name) is None else _text(parameters, name)


def _number(parameters: Parameters, name: str, default: int) -> int:
    value = parameters.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UsageError(f"the parameter {name!r} must be a number")
    return value


def _moved(workspace: Workspace, moved: Moved) -> dict[str, Any]:
    return {
        "workspace": workspace.name,
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
