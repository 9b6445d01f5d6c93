"""The rows that runs leave: what an action has come to, and a record of each execution (docs/format.md)."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from fusecas import _native
from fusecas.store.environment import Value
from fusecas.store.ids import ContentId, LayerId, ObjectId, StateId, TimesId
from fusecas.store.rows import a_number, a_text, an_id, fields_of, id_or_none, items_of, reading, some_bytes


class Window(NamedTuple):
    """From the beginning of a command to the end of its last descendant, in ns since 1970."""

    start: int
    end: int


class Result(NamedTuple):
    """What an action came to, to be put in place instead of doing it again. Weak: it keeps nothing alive.

    `base_times`, `times`: before and after. `record`: the execution that it is of.
    """

    base: StateId
    base_times: TimesId | None
    state: StateId
    times: TimesId | None
    window: Window
    exit: int
    stdout: ContentId
    stderr: ContentId
    record: bytes
    hits: int = 0

    def needs(self) -> list[ObjectId]:
        named = [self.base, self.base_times, self.state, self.times, self.stdout, self.stderr]
        return [each for each in named if each is not None]

    def encode(self) -> bytes:
        return _native.cbor_encode({**self._asdict(), "window": list(self.window)})

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("the result of an action"):
            fields = fields_of(value, *cls._fields)
            return cls(
                base=StateId(an_id(fields["base"])),
                base_times=id_or_none(fields["base_times"], TimesId),
                state=StateId(an_id(fields["state"])),
                times=id_or_none(fields["times"], TimesId),
                window=Window(*map(a_number, items_of(fields["window"], 2))),
                exit=a_number(fields["exit"]),
                stdout=ContentId(an_id(fields["stdout"])),
                stderr=ContentId(an_id(fields["stderr"])),
                record=some_bytes(fields["record"]),
                hits=a_number(fields["hits"]),
            )


def encode_holders(paths: Iterable[bytes]) -> bytes:
    return _native.cbor_encode(sorted(paths))


def decode_holders(value: Value) -> frozenset[bytes]:
    with reading("a row of bound"):
        paths = _native.cbor_decode(value)
        return frozenset(map(some_bytes, items_of(paths, len(paths))))


RUNNING, DONE, INTERRUPTED = "running", "done", "interrupted"


class Record(NamedTuple):
    """One execution of a command, whatever it came to. Its key is its number: a UUID that begins with the time.

    `action`: the key of the run as a node, encoded. `layer`: the one that it made. `signal`: that the command died of.
    `mixed`: who else has changed something meanwhile, and what.
    """

    workspace: bytes
    status: str
    action: bytes
    base: StateId
    started: int
    ended: int | None = None
    exit: int | None = None
    signal: int | None = None
    state: StateId | None = None
    layer: LayerId | None = None
    stdout: ContentId | None = None
    stderr: ContentId | None = None
    killed: tuple[str, ...] = ()
    mixed: str | None = None
    base_times: TimesId | None = None

    def roots(self) -> list[ObjectId]:
        """What it keeps alive: the output; and while it runs, what it began with, which is perhaps neither committed
        nor in the live row any more. Other states and layers are kept by the operations."""
        base = (self.base, self.base_times) if self.status == RUNNING else ()
        return [each for each in (self.stdout, self.stderr, *base) if each is not None]

    def encode(self) -> bytes:
        return _native.cbor_encode({**self._asdict(), "killed": list(self.killed)})

    @classmethod
    def decode(cls, value: Value) -> Self:
        with reading("the record of a run"):
            fields = fields_of(value, *cls._fields)
            killed = fields["killed"]
            if not isinstance(killed, list):
                raise ValueError("killed is no list")
            return cls(
                workspace=some_bytes(fields["workspace"]),
                status=a_text(fields["status"]),
                action=some_bytes(fields["action"]),
                base=StateId(an_id(fields["base"])),
                started=a_number(fields["started"]),
                ended=_number_or_none(fields["ended"]),
                exit=_number_or_none(fields["exit"]),
                signal=_number_or_none(fields["signal"]),
                state=id_or_none(fields["state"], StateId),
                layer=id_or_none(fields["layer"], LayerId),
                stdout=id_or_none(fields["stdout"], ContentId),
                stderr=id_or_none(fields["stderr"], ContentId),
                killed=tuple(map(a_text, killed)),
                mixed=None if fields["mixed"] is None else a_text(fields["mixed"]),
                base_times=id_or_none(fields["base_times"], TimesId),
            )


def _number_or_none(value: Any) -> int | None:
    return None if value is None else a_number(value)
