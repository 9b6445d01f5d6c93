"""The daemon of a repository as seen from outside: starting it, and making it end."""

import json
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fusecas.client import Client, NoDaemon, to_exception
from fusecas.errors import EnvironmentProblem, InUse, Refused

Tell = Callable[[str], None]
PATIENCE = 60.0
PATIENCE_IF_LAZY = 1.0


def to_nobody(_message: str) -> None:
    pass


def daemon(repository: Path, name: str, place: Path, *, allow_other: bool = False) -> list[str]:
    """The words that start one, with workspace `name` mounted at `place`."""
    return [sys.executable, "-m", "fusecas.daemon.serve", str(repository), name, str(place), str(int(allow_other))]


def serving(repository: Path, place: Path, tell: Tell = to_nobody) -> Client:
    """The daemon of a repository; if there is none, one is started: for an adopted folder there, else where it was
    mounted last, or else at `place`."""
    try:
        return Client(repository)
    except NoDaemon:
        from fusecas.mount.mountpoint import recorded
        from fusecas.store.adopted import adopted_folder

    settle(repository, tell)
    usual = adopted_folder(repository) or recorded(repository)
    with suppress(InUse):  # somebody else was faster
        mount_at(repository, usual or Path(os.path.realpath(place)))
    return Client(repository)


def mount_at(repository: Path, place: Path) -> None:
    """With the default workspace as its root."""
    from fusecas.store.heads import DEFAULT

    start(daemon(repository, DEFAULT, place), repository)


def settle(repository: Path, tell: Tell = to_nobody) -> None:
    """An adopt or a release that was interrupted is ended first; refused, if the folder is no workspace then."""
    from fusecas.store.adopted import Note, Step

    note = Note.read(repository)
    if note is None or note.step == Step.ADOPTED:
        return
    from fusecas.adopt import settling

    came = settling.settle(repository)
    if came is not None and not came.is_adopted:
        raise Refused(came.said, hint="fusecas adopt DIR takes a folder over")
    if came is not None:
        tell(came.said)


def start(words: list[str], repository: Path) -> None:
    """Start the daemon, and wait until its mount answers or it has said why not."""
    import subprocess  # only a daemon that is not there yet needs it

    run = repository / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    answer, say = os.pipe()
    with (run / "log").open("ab") as log:
        starting = subprocess.Popen(
            [*words, str(say), "detached"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(say,),
            start_new_session=True,
            cwd="/",
            env=variables(),
        )
    os.close(say)
    starting.wait()
    with os.fdopen(answer, "rb") as answers:
        said = answers.read()
    if not said:
        raise EnvironmentProblem("the daemon died before its mount answered", hint=f"see {run / 'log'}")
    problem = json.loads(said)
    if problem:
        raise to_exception(problem)


def variables() -> dict[str, str]:
    """Of a daemon: it is part of no run, though one may have started it, since it serves whoever comes."""
    from fusecas.wire import RUN_VARIABLE

    return {name: value for name, value in os.environ.items() if not name.startswith(RUN_VARIABLE)}


def end(repository: Path, *, lazy: bool = False) -> bool:
    """Unmount, and wait until the daemon has made all durable and is gone. `lazy`: even if somebody is in it; False if
    it is to end only when they leave. NoDaemon if nothing is mounted."""
    try:
        client = Client(repository, any_protocol=True)
    except NoDaemon:
        from fusecas.mount.mountpoint import clear_away

        if clear_away(repository):  # what a daemon that was killed has left
            return True
        raise
    with client:
        process = os.pidfd_open(client.call("hello")["pid"])
        try:
            client.call("umount", lazy=lazy)
            has_ended = bool(select.select([process], [], [], PATIENCE_IF_LAZY if lazy else PATIENCE)[0])
        finally:
            os.close(process)
    if not has_ended and not lazy:
        raise EnvironmentProblem("the daemon does not end", hint=f"see {repository / 'run' / 'log'}")
    return has_ended
