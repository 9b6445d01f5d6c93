"""History: the layers behind a revision, along first parents, with what made each and when it came to its head."""

from collections.abc import Iterator
from typing import NamedTuple

from fusecas.store import heads
from fusecas.store.ids import Kind, LayerId, StateId
from fusecas.store.kinds import Layer, command_of
from fusecas.store.snapshot import Snapshot


class HistoryEntry(NamedTuple):
    """One layer. `time` (ns) is that of the last operation that brought it to the head; None if none did."""

    layer: LayerId
    parents: tuple[LayerId, ...]
    state: StateId
    kind: str
    instruction: str
    message: str | None
    exit: int | None
    time: int | None


def entries(reader: Snapshot, layer: LayerId | None, head: str = heads.DEFAULT) -> Iterator[HistoryEntry]:
    """Newest first. Reads as many layers and operations as are asked for."""
    times = _Times(reader, heads.NAMESPACE + head)
    time: int | None = None
    while layer is not None:
        core = Layer.decode(reader.read_node(layer, Kind.LAYER))
        kind, instruction = describe(core)
        own = times.of(layer)
        # What was uncommitted before a run became a layer with the run's: it was never a head by itself.
        time = time if own is None and core.program is None else own
        yield HistoryEntry(
            layer,
            tuple(core.parents),
            core.state,
            kind,
            instruction,
            core.message,
            core.exit,
            time,
        )
        layer = core.parents[0] if core.parents else None


def describe(core: Layer) -> tuple[str, str]:
    """(kind, instruction): what made a layer, in the words of who did it."""
    program = core.program
    if program is None:
        return "edits", core.message or "(edits)"
    if "shell" in program or "argv" in program:
        return "run", command_of(program)
    if "verb" in program:
        return program["verb"], core.message or f"({program['verb']})"
    return "task", core.message or "(task)"


class _Times:
    """When layers came to a head: read from its operations, newest first, only as far as is needed."""

    def __init__(self, reader: Snapshot, ref: str) -> None:
        self._ref = ref
        self._operations = reader.ref_operations_back(ref)
        self._found: dict[LayerId, int] = {}

    def of(self, layer: LayerId) -> int | None:
        while layer not in self._found:
            operation = next(self._operations, None)
            if operation is None:
                return None
            for move in operation.moves:
                if move.ref == self._ref and move.new_live is not None and move.new_live.layer is not None:
                    self._found.setdefault(move.new_live.layer, operation.time)
        return self._found[layer]
