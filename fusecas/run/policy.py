"""What people have said about runs: `[run]` in fusecas.toml at the workspace's root, and in config.toml of the
repository.

The first is versioned, so it is part of the state that a key is for; the second is of this machine, and wins. Lists
unite; `!x` takes x out again.
"""

import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from fusecas.errors import BadConfiguration
from fusecas.run import times
from fusecas.run.environment import SESSION_NOISE
from fusecas.store import trees
from fusecas.store.ids import StateId
from fusecas.store.snapshot import Snapshot

VERSIONED, LOCAL = "fusecas.toml", "config.toml"
LARGEST = 1 << 20
OTHER_TABLES = ("hooks", "gc", "cache", "domains")
"""Of config.toml, which others read."""
AUTO, NONE = "auto", "none"
USER, WORKSPACE = "user", "workspace"
SHELL_SIGNS = (";", "&", "|", "<", ">", "`", "$(", "\n")


class Policy(NamedTuple):
    """`ignore_env`: patterns of variables that are not in the key. `pure`, `never`: of commands whose result is served
    though it changes nothing, and is never served. `writers`: of programs that may write beside a run. `stat_caches`:
    files that are in the key by what they say. `host`: AUTO, NONE, or files and programs that count. `home`: whose HOME
    a command sees."""

    ignore_env: tuple[str, ...] = SESSION_NOISE
    pure: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    stat_caches: tuple[str, ...] = (".git/index",)
    times: str = times.ORDER
    host: str | tuple[str, ...] = AUTO
    home: str = USER
    output_limit: int = 64 << 20

    @property
    def stat_cache_paths(self) -> tuple[bytes, ...]:
        return tuple(each.strip("/").encode(errors="surrogateescape") for each in self.stat_caches)

    def is_pure(self, command: str) -> bool:
        return _matches(command, self.pure)

    def is_never_served(self, command: str) -> bool:
        return _matches(command, self.never)

    def counts_in(self, program: str) -> bool:
        return any(fnmatchcase(program, pattern) for pattern in self.writers)


def policy_of(snapshot: Snapshot, state: StateId, folder: Path) -> Policy:
    """BadConfiguration names the file and what is wrong in it."""
    text = _versioned(snapshot, state)
    local = folder / LOCAL
    known = _with(Policy(), _run_table(VERSIONED, text, ("run",)))
    return _with(known, _run_table(str(local), local.read_bytes() if local.exists() else b"", ("run", *OTHER_TABLES)))


def _versioned(snapshot: Snapshot, state: StateId) -> bytes:
    entry = trees.lookup(snapshot, state, VERSIONED.encode())
    if entry is None:
        return b""
    if not entry.is_file:
        raise BadConfiguration(f"{VERSIONED} is no file", hint="what a link leads to would not be part of the key")
    if entry.size > LARGEST:
        raise BadConfiguration(f"{VERSIONED} is larger than {LARGEST} bytes")
    return b"" if entry.target is None else snapshot.read_content(entry.target)


class _Table(NamedTuple):
    file: str
    values: Mapping[str, Any]


def _run_table(file: str, text: bytes, tables: tuple[str, ...]) -> _Table:
    try:
        found = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadConfiguration(f"{file}: {error}") from error
    for name in found:
        if name not in tables:
            raise _unknown(file, f"[{name}]", name, tables)
    values = found.get("run", {})
    if not isinstance(values, dict):
        raise BadConfiguration(f"{file}: run is a table", hint="[run]")
    return _Table(file, values)


def _with(policy: Policy, table: _Table) -> Policy:
    for name, value in table.values.items():
        if name not in Policy._fields:
            raise _unknown(table.file, f"[run] {name}", name, Policy._fields)
        fits, what = FITTING[name]
        if not fits(value):
            raise BadConfiguration(f"{table.file}: [run] {name} = {value!r}", hint=f"{name} is {what}")
        if isinstance(value, list):
            before = getattr(policy, name)
            value = _united(before if isinstance(before, tuple) else (), value)
        policy = policy._replace(**{name: value})
    return policy


def _unknown(file: str, what: str, name: str, known: tuple[str, ...]) -> BadConfiguration:
    near = get_close_matches(name, known, 1)
    return BadConfiguration(f"{file}: there is no {what}", hint=f"did you mean {near[0]}?" if near else None)


def _united(before: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    found = dict.fromkeys(before)
    for each in more:
        if each.startswith("!"):
            found.pop(each[1:], None)
        else:
            found[each] = None
    return tuple(found)


def _matches(command: str, patterns: tuple[str, ...]) -> bool:
    """What a shell makes more than one command of is matched by itself only: `pytest*` is not to cover
    `pytest; git push`."""
    command = command.strip()
    if any(sign in command for sign in SHELL_SIGNS):
        return command in patterns
    return any(fnmatchcase(command, pattern) for pattern in patterns)


# ---- what may be said


def _one_of(*words: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, str) and value in words, "one of " + ", ".join(map(repr, words))


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and "\0" not in each for each in value)


LIST = (_is_list, "a list of texts")
FITTING: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("ignore_env", "pure", "never", "writers", "stat_caches"), LIST),
    "times": _one_of(*times.MODES),
    "host": (lambda value: value in (AUTO, NONE) or _is_list(value), "'auto', 'none', or a list of files and programs"),
    "home": _one_of(USER, WORKSPACE),
    "output_limit": (lambda value: type(value) is int and value >= 0, "a number of bytes"),
}
