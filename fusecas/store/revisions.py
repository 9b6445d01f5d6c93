"""What people call layers and states: `@`, `REF~2`, `main@{1}`, tags, prefixes of hashes, `REF:PATH`.

    revision  = base ("~" [N] | "@{" N | TIME "}" | "@op:" N)*
    base      = "@" | "@live" | "@empty" | "ws:" NAME | "hash:" PREFIX | TAG | PREFIX | NAME

A tag wins over a prefix, a prefix over a workspace's name.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fusecas.errors import DamagedEnvironment, ExpiredError, ObjectNotFound, RefNotFound, UsageError
from fusecas.store import heads, tags
from fusecas.store.ids import Kind, LayerId, StateId, TimesId
from fusecas.store.kinds import Layer
from fusecas.store.rows import Baseline, Operation
from fusecas.store.snapshot import HEX_DIGITS, SHORTEST_PREFIX, Snapshot

SUFFIX = re.compile(r"~(?P<back>\d*)$|@\{(?P<at>[^}]*)\}$|@op:(?P<operation>\d+)$")
LIVE = re.compile("@live(?![^:~])")
MOST_DIGITS = 18
AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)$")
EPOCH, MICROSECOND = datetime.fromtimestamp(0, UTC), timedelta(microseconds=1)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Revision(NamedTuple):
    """What a name stands for now. Without a layer: a state that no layer has (yet)."""

    text: str
    layer: LayerId | None
    state: StateId
    times: TimesId | None
    baseline: Baseline | None = None


def split_path(text: str) -> tuple[str, bytes | None]:
    """`REF:PATH` at the first colon after a leading `ws:` or `hash:`, and none within `@{…}`; no colon: no path."""
    lead = next((each for each in ("ws:", "hash:") if text.startswith(each)), "")
    rest = text[len(lead) :]
    past = re.match(r"[^:{]*@(?:\{[^}]*\}|op:\d+)", rest)
    at = rest.find(":", past.end() if past else 0)
    if at < 0:
        return text, None
    return lead + rest[:at], rest[at + 1 :].encode(errors="surrogateescape").strip(b"/")


def is_live(text: str) -> bool:
    """Whether it is seen from `@live`: what is uncommitted must be a state before it is looked for."""
    return LIVE.match(text) is not None


def resolve(
    reader: Snapshot,
    text: str,
    current: str = heads.DEFAULT,
    warn: Callable[[str], None] = lambda message: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Revision:
    """What `text` names, seen from workspace `current`. RefNotFound, AmbiguousPrefix, ExpiredError, UsageError."""
    base, steps = _steps(text)
    if steps and (steps[0].group("at") is not None or steps[0].group("operation") is not None):
        revision = _of_past(reader, text, base, steps[0], current, now)
        steps = steps[1:]
    else:
        revision = _of_base(reader, base, current, warn)
    for step in steps:
        if step.group("back") is None:
            raise UsageError(f"{text}: {step.group(0)} belongs right after a workspace's name")
        revision = _back(reader, text, revision, int(step.group("back") or 1))
    return revision._replace(text=text)


def _steps(text: str) -> tuple[str, list[re.Match[str]]]:
    steps: list[re.Match[str]] = []
    while found := SUFFIX.search(text):
        if any(each is not None and each.isdecimal() and len(each) > MOST_DIGITS for each in found.groups()):
            raise RefNotFound(f"{text[:40]}…: nothing goes back that far")
        steps.insert(0, found)
        text = text[: found.start()]
    return text, steps


def of_layer(reader: Snapshot, layer: LayerId, text: str) -> Revision:
    state = Layer.decode(reader.read_node(layer, Kind.LAYER)).state
    return Revision(text, layer, state, reader.layer_times(layer), reader.layer_baseline(layer))


def _of_base(reader: Snapshot, base: str, current: str, warn: Callable[[str], None]) -> Revision:
    if base in ("@", "@live", "@empty"):
        return _of_sign(reader, base, current)
    if base.startswith("ws:"):
        return _of_head(reader, base.removeprefix("ws:"), base)
    if base.startswith("hash:"):
        return of_layer(reader, LayerId(reader.resolve_prefix(base.removeprefix("hash:"), layers_only=True)), base)
    looks_like_hash = SHORTEST_PREFIX <= len(base) <= 64 and set(base) <= HEX_DIGITS
    tag = reader.get_ref(tags.NAMESPACE + base)
    if tag is not None:
        if looks_like_hash:
            warn(f"{base} is taken as the tag; hash:{base} means the layer")
        return of_layer(reader, LayerId(tag.target), base)
    is_head = reader.get_ref(heads.NAMESPACE + base) is not None
    if looks_like_hash:
        try:
            return of_layer(reader, LayerId(reader.resolve_prefix(base, layers_only=True)), base)
        except ObjectNotFound:
            if not is_head:
                raise
    if is_head:
        return _of_head(reader, base, base)
    raise RefNotFound(f"no layer, tag or workspace {base!r}", details={"name": base, "known": known_names(reader)})


def _of_sign(reader: Snapshot, base: str, current: str) -> Revision:
    head = heads.read_head(reader, current)
    if base == "@":
        return _of_head(reader, current, base)
    if base == "@live":
        saved = None if head.workspace.layer is None else of_layer(reader, head.workspace.layer, base)
        layer = saved.layer if saved is not None and saved.state == head.live.state else None
        return Revision(base, layer, head.live.state, head.live.times, head.live.baseline)
    return _empty(base)


def _empty(text: str) -> Revision:
    from fusecas import _native

    state = StateId(_native.node_id(Kind.STATE, heads.EMPTY_STATE.encode()))  # type: ignore[arg-type]
    return Revision(text, None, state, None)


def _of_head(reader: Snapshot, name: str, text: str) -> Revision:
    layer = heads.read_head(reader, name).workspace.layer
    return _empty(text) if layer is None else of_layer(reader, layer, text)


def _back(reader: Snapshot, text: str, revision: Revision, steps: int) -> Revision:
    for _ in range(steps):
        if revision.layer is None:
            raise RefNotFound(f"{text}: there is nothing before @empty")
        parents = Layer.decode(reader.read_node(revision.layer, Kind.LAYER)).parents
        revision = of_layer(reader, parents[0], text) if parents else _empty(text)
    return revision


def _of_past(
    reader: Snapshot, text: str, base: str, step: re.Match[str], current: str, now: Callable[[], datetime]
) -> Revision:
    """Where a workspace or a tag was: N changes ago, at a time, after an operation."""
    name = current if base in ("", "@") else base.removeprefix("ws:")
    spaces = (heads.NAMESPACE,) if name != base else (tags.NAMESPACE, heads.NAMESPACE)
    ref = next((space + name for space in spaces if _has_past(reader, space + name)), None)
    if ref is None:
        raise RefNotFound(f"no workspace or tag {name!r}", details={"name": name, "known": known_names(reader)})
    if step.group("operation") is not None:
        limit = int(step.group("operation"))
        found = next((each for each in reader.ref_operations_back(ref) if each.number <= limit), None)
    elif step.group("at").isdecimal():
        found = _nth(reader.ref_operations_back(ref), int(step.group("at")))
    else:
        moment = (parse_time(step.group("at"), now()) - EPOCH) // MICROSECOND * 1000  # exact, as no float is
        found = next((each for each in reader.ref_operations_back(ref) if each.time <= moment), None)
    if found is None:
        raise RefNotFound(f"{text}: {name} does not go back that far", hint=f"fusecas op log {name}")
    return _after(reader, text, ref, found)


def _has_past(reader: Snapshot, ref: str) -> bool:
    return next(reader.ref_operations_back(ref), None) is not None


def _nth(operations: Iterator[Operation], number: int) -> Operation | None:
    return next((each for i, each in enumerate(operations) if i == number), None)


def _after(reader: Snapshot, text: str, ref: str, operation: Operation) -> Revision:
    move = operation.move_of(ref)
    if move is None:
        raise DamagedEnvironment(f"operation {operation.number} is in the log of {ref}, which it did not move")
    if move.new is None:
        raise RefNotFound(f"{text}: it was deleted then (operation {operation.number})")
    # A layer that was a head is kept longer than the operation that says so.
    live = move.new_live
    layer = LayerId(move.new) if live is None else live.layer
    wanted = layer if layer is not None or live is None else live.state
    if wanted is None or not reader.has(wanted):
        raise ExpiredError(f"{text}: gc has collected it; operation {operation.number} is past its grace time")
    if layer is not None:
        return of_layer(reader, layer, text)
    assert live is not None
    return Revision(text, None, live.state, live.times, reader.still(live.baseline))


def parse_time(text: str, now: datetime) -> datetime:
    """`2026-11-24 10:00` (local time unless it says otherwise), `now`, `yesterday`, `10m`, `2h`, `3d` ago."""
    spoken = text.strip().removesuffix("ago").strip()
    if spoken == "now":
        return now
    if spoken == "yesterday":
        return now - timedelta(days=1)
    if found := AGO.match(spoken):
        try:
            return now - timedelta(seconds=float(found.group(1)) * UNITS[found.group(2)])
        except OverflowError as error:
            raise _no_time(text) from error
    try:
        return datetime.fromisoformat(spoken).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _no_time(text) from error


def _no_time(text: str) -> UsageError:
    return UsageError(f"{text!r} is not a time", hint="2026-11-24T10:00, yesterday, 10m, 2h, 3d")


def known_names(reader: Snapshot) -> list[str]:
    """Names that a person may have meant."""
    return [name.split("/", 1)[1] for space in (tags.NAMESPACE, heads.NAMESPACE) for name, _ in reader.list_refs(space)]
