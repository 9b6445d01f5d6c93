"""Pipes and terminals: what is coloured, what is escaped, what is silent, and how a command is stopped."""

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import ENVIRONMENT, NOT_UTF8, TIMEOUT, Place, read_all

COLOUR = "\x1b["
CALLS = ["log", "ls -l", "diff old @", "diff old @ -p", "diff old @ --stat", "inspect", "op log", "tags", "refs @"]


@pytest.mark.parametrize("call", CALLS)
def test_piped_output_is_plain(shared: Place, call: str) -> None:
    assert COLOUR not in shared.ok(*call.split()).text


@pytest.mark.parametrize("call", CALLS)
def test_a_terminal_gets_colours(shared: Place, call: str) -> None:
    assert COLOUR in shared.on_terminal(*call.split())


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(shared: Place, env: dict[str, str]) -> None:
    assert COLOUR not in shared.on_terminal("log", env=env)


def test_an_error_is_coloured_on_a_terminal_only(shared: Place) -> None:
    assert COLOUR not in shared.run("log", "nothing").stderr


def test_times_are_iso_when_piped(shared: Place) -> None:
    assert shared.ok("log").lines[0].split()[1].endswith("Z")


def test_times_are_relative_on_a_terminal(shared: Place) -> None:
    seen = shared.on_terminal("log")
    assert "ago" in seen or "just now" in seen


@pytest.mark.parametrize("call", ["log", "inspect", "op log", "ls -l"])
def test_times_are_dates_where_they_are_asked_for(shared: Place, call: str) -> None:
    seen = shared.on_terminal(*call.split(), "--dates")
    assert (
        re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", seen)
        and "ago" not in seen
        and "just now" not in seen
    )


AGO = [
    (2, "just now"),
    (30, r"[34]\d s ago"),
    (200, "3 min ago"),
    (9000, "2 h ago"),
    (90_000, "1 day ago"),
    (9_000_000, r"20\d\d-\d\d-\d\d"),
]


@pytest.mark.parametrize(("seconds", "said"), AGO)
def test_how_long_ago_is_short_and_what_is_old_has_a_date(place: Place, seconds: int, said: str) -> None:
    moment = time.time() - seconds
    os.utime(place.folder / "source" / "b.txt", (moment, moment))
    place.ok("import", "source")
    os.utime(place.folder / "source" / "c.txt", (moment, moment))
    (place.folder / "source" / "new").touch()
    place.ok("import", "source")
    (line,) = [each for each in place.on_terminal("ls", "-l", env={"NO_COLOR": "1"}).splitlines() if "c.txt" in each]
    assert re.search(said, line)


def test_hashes_have_twelve_digits(shared: Place) -> None:
    assert all(len(each.split()[0]) == 12 for each in shared.ok("log").lines)


def test_a_name_that_is_not_utf8_is_escaped_for_people(shared: Place) -> None:
    assert "caf\\xe9" in shared.on_terminal("ls")


def test_a_name_that_is_not_utf8_is_raw_with_z(shared: Place) -> None:
    assert NOT_UTF8 in shared.ok("ls", "-z").stdout.split(b"\0")


def test_changed_paths_are_raw_with_z(shared: Place) -> None:
    names = shared.ok("diff", "@empty", "@", "--name-only", "-z").stdout.split(b"\0")
    assert NOT_UTF8 in names


def test_a_name_cannot_move_the_cursor(place: Place) -> None:
    (place.folder / "source" / "evil\x1b[2Jname\n").touch()
    place.ok("import", "source")
    assert "evil\\x1b[2Jname\\n" in place.on_terminal("ls")


def test_columns_are_aligned_beside_wide_letters(place: Place) -> None:
    place.ok("tag", "漢字")
    wide, narrow = sorted(place.ok("tags").lines, key=len)
    assert (wide.index(" "), narrow.index(" ")) == (2, 3)
    assert wide.count(" ") == 2 and narrow.count(" ") == 3


def test_what_an_encoding_lacks_is_escaped(place: Place) -> None:
    (place.folder / "source" / "größe").touch()
    place.ok("import", "source")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    found = python(place, "-X", "utf8=0", "-m", "fusecas", "ls", env=ascii_only)
    assert "gr\\xf6\\xdfe" in found.stdout


@pytest.mark.parametrize("call", ["log", "ls -R", "log --json", "cat @:bin", "get @", "--help", "ls -z"])
def test_a_reader_that_is_gone_is_no_error(shared: Place, call: str) -> None:
    process = shared.start(*call.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(TIMEOUT), said) == (141, b"")


class Waiting:
    """A `put -` that waits for more of its stdin, on a terminal, until its progress shows."""

    def __init__(self, place: Place) -> None:
        self.master, slave = pty.openpty()

        def take_terminal() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that run in the background of a shell ignore it
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = place.start(
            "put", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave, preexec_fn=take_terminal
        )
        os.close(slave)
        assert self.process.stdin is not None
        self.process.stdin.write(b"some of it")
        self.process.stdin.flush()
        self.seen = b""
        while b"storing" not in self.seen:
            self.seen += os.read(self.master, 1 << 16)

    def state(self) -> str:
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wait_for(self, state: str) -> None:
        until = time.monotonic() + TIMEOUT
        while self.state() != state:
            assert time.monotonic() < until, self.state()
            time.sleep(0.005)

    def end(self) -> tuple[int, bytes, str]:
        stdout, _ = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, stdout, self.seen.decode() + read_all(self.master)


@pytest.fixture
def waiting(place: Place) -> Iterator[Waiting]:
    made = Waiting(place)
    yield made
    made.process.kill()
    made.process.wait()


def test_progress_is_shown_for_what_takes_longer_than_a_second(waiting: Waiting) -> None:
    code, stdout, seen = waiting.end()
    assert code == 0
    assert len(stdout) == 65
    assert "storing" in seen


def test_ctrl_c_ends_a_command_without_a_traceback(waiting: Waiting) -> None:
    os.write(waiting.master, b"\x03")
    waiting.process.wait(TIMEOUT)  # a terminal passes it on when it likes: the end of stdin must not be faster
    code, stdout, seen = waiting.end()
    assert (code, stdout) == (130, b"")
    assert "Traceback" not in seen


def test_ctrl_z_of_a_writer_does_not_stop_others(waiting: Waiting, place: Place) -> None:
    status = Path(f"/proc/{waiting.process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    assert caught >> (signal.SIGTSTP - 1) & 1, "Ctrl-Z would stop it with the writer's lock in hand"
    os.write(waiting.master, b"\x1a")
    waiting.wait_for("T")
    place.ok("tag", "meanwhile")
    waiting.process.send_signal(signal.SIGCONT)
    assert waiting.end()[0] == 0


def python(place: Place, *words: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    found = subprocess.run(
        [sys.executable, *words],
        cwd=place.folder,
        env={**ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert found.returncode == 0, found.stderr
    return found


def imports(place: Place, *words: str) -> set[str]:
    """The modules that a command loads, piped."""
    told = python(place, "-X", "importtime", "-m", "fusecas", *words).stderr
    return {line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time")}


def test_head_loads_nothing_heavy(shared: Place) -> None:
    heavy = {"rich", "trio", "asyncio", "pyfuse3", "difflib", "json", "subprocess", "tempfile", "blake3", "cbor2"}
    loaded = imports(shared, "head")
    assert "click" in loaded
    assert not loaded & heavy
    assert not loaded & {f"fusecas.cli.{each}" for each in ("tree", "objects", "operations", "repository")}


def test_a_piped_import_shows_no_progress(place: Place) -> None:
    (place.folder / "source" / "more").touch()
    assert "rich" not in imports(place, "import", "source")
