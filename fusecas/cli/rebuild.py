"""rebuild: is the workspace what its layers say, and if not, made so."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusecas.cli import output
from fusecas.cli.asking import live_of
from fusecas.cli.common import verb, writing
from fusecas.cli.progress import objects, progress
from fusecas.cli.where import current_workspace, repository_folder, ws_option

if TYPE_CHECKING:
    from fusecas.cli.call import Call


@verb("rebuild")
@ws_option
def rebuild(ws: str | None, call: "Call", repo: Path | None) -> Any:
    """Read all layers behind the head again and check them, and what the live tree stands on.

    Content that is damaged can't be made anew: exit 5, and nothing has changed. What belongs to the workspace alone is:
    its times, its inodes' numbers, and its journal, which is put aside with what was in it. What is uncommitted and can
    be read stays. A repair is an operation; the workspace must not be mounted for it (exit 4).

    Example: fusecas rebuild
    """
    from fusecas.workspace import rebuilding
    from fusecas.workspace.mover import Deed

    name = ws or current_workspace(call, repository_folder(repo))
    deed = Deed(*call.deed())
    with writing(repo) as repository, progress("verifying", objects) as tell:
        found = rebuilding.rebuild(repository, name, live_of(repository, call, name).seal, deed, tell)
    if not call.as_json:
        print(f"verified {output.count(found.layers, 'layer')}, {output.count(found.objects, 'object')}")
        print(f"made anew: {', '.join(found.repaired)}" if found.repaired else "the live tree is as it should be")
        if found.aside is not None:
            print(f"what nobody had sealed can't be read any more; its files are in {output.printable(found.aside)}")
    return {
        "workspace": found.workspace,
        "layers": found.layers,
        "objects": found.objects,
        "repaired": list(found.repaired),
        "operation": None if found.operation is None else found.operation.number,
        "aside": None if found.aside is None else output.path_fields(os.fsencode(found.aside))["path"],
    }


COMMANDS = {"rebuild": rebuild}
