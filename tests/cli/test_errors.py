"""What goes wrong: one exit code a kind, a message that names the thing, the nearest name, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT, Place

MISTAKES = {
    "unknown verb": (2, "haed", "did you mean head?"),
    "unknown verb of op": (2, "op lgo", "did you mean log?"),
    "unknown option": (2, "log --limt 3", "did you mean --limit?"),
    "unknown option before the verb": (2, "--jsno head", "did you mean --json?"),
    "argument missing": (2, "tag", "fusecas tag --help"),
    "argument too many": (2, "head now", "unexpected extra argument"),
    "a number that is none": (2, "log --limit x", "not a valid integer"),
    "a field that is none": (2, "log --sort size", "'time', 'instruction', 'kind', 'hash'"),
    "an owner that is none": (2, "import source --owner root", "UID:GID"),
    "an owner beyond all users": (2, "import source --owner 4294967295:0", "UID:GID"),
    "more rows than there can be": (2, f"log --limit {'9' * 20}", "not in the range"),
    "a time span beyond all": (2, f"gc --expire {'9' * 400}", "10m"),
    "two places for a repository": (2, "init there --repo elsewhere", "two places"),
    "a time beyond all calendars": (2, "log main@{99999999999999d}", "is not a time"),
    "a time span that is none": (2, "gc --min-age soon", "10m"),
    "a name that is none": (2, "tag a:b", "can't be a name"),
    "cat without a path": (2, "cat b.txt", "@:b.txt"),
    "unknown ref": (3, "log mian", "did you mean main?"),
    "unknown tag": (3, "tag -d odl", "did you mean old?"),
    "unknown ref of an operation": (3, "op log mian", "did you mean main?"),
    "unknown path": (3, "cat @:b.tx", "did you mean b.txt?"),
    "a path for a ref": (3, "ls d", "did you mean @:d?"),
    "a path without --": (3, "diff old d", "paths come after --"),
    "a directory for a file": (3, "cat @:d", "is a directory, not a file"),
    "too far back": (3, "log @~9", "nothing before @empty"),
    "unknown object": (3, "get 0000000000", "no object 0000000000"),
    "a file that is not there": (3, "put nothing", "nothing: No such file"),
    "a folder for a file": (3, "put source", "source: Is a directory"),
    "a folder that is not there": (3, "import nothing", "nothing"),
    "a second init": (4, "init", "is there already"),
    "a tag that is there": (4, "tag old", "-f moves it"),
    "an export over something": (4, "export @ source", "source"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_has_its_exit_code_and_its_hint(place: Place, mistake: str) -> None:
    code, call, said = MISTAKES[mistake]
    before = place.ok("op", "log").stdout
    answer = place.run(*call.split())
    assert (answer.code, answer.stdout) == (code, b"")
    assert answer.stderr.startswith("fusecas: ")
    assert said in answer.stderr
    assert place.ok("op", "log").stdout == before, "a mistake changes nothing"


def test_damaged_content_is_exit_5_to_its_reader_and_to_verify(place: Place) -> None:
    data = place.repository / "store/data.mdb"
    stored = data.read_bytes()
    assert stored.count(b"hello, this is a\n") >= 1
    data.write_bytes(stored.replace(b"hello, this is a\n", b"jello, this is a\n"))
    content = place.ok("hash", "source/c.txt").text.strip()
    assert place.run("cat", "@:c.txt").code == 5
    answer = place.run("verify", "--json")
    assert (answer.code, answer.error["code"]) == (5, "damaged")
    assert answer.error["details"]["corrupted"] == [content]
    for_people = place.run("verify")
    assert (for_people.code, f"corrupted {content}" in for_people.text) == (5, True)


def test_a_store_that_was_cut_short_is_exit_5(place: Place) -> None:
    os.truncate(place.repository / "store/data.mdb", 5000)
    answer = place.run("head")
    assert (answer.code, "data.mdb" in answer.stderr) == (5, True)


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_an_answer_that_does_not_fit_on_the_disk_is_exit_6(shared: Place, how: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        answer = shared.run("ls", *how, stdout=full)
    assert answer.code == 6
    if not how:
        assert "No space left" in answer.stderr


def with_a_bug(place: Place, *words: str) -> "subprocess.CompletedProcess[str]":
    """A real process in which reading the head fails as nobody expects."""
    program = (
        "import sys; from fusecas.store import heads; heads.read_head = lambda *_: {}['oops']\n"
        "from fusecas.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=place.folder,
        env={**ENVIRONMENT, "TMPDIR": str(place.folder)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


def test_a_bug_is_one_line_and_a_file_with_the_traceback(place: Place) -> None:
    answer = with_a_bug(place, "head")
    assert answer.returncode == 70
    first, second = answer.stderr.splitlines()
    assert first == "fusecas: this is a bug in fusecas: KeyError: 'oops'"
    assert "Traceback" in Path(second.removeprefix("  its traceback is in ")).read_text()


def test_a_bug_with_debug_shows_its_traceback(place: Place) -> None:
    assert "Traceback" in with_a_bug(place, "head", "--debug").stderr


def test_a_bug_with_json_is_a_document(place: Place) -> None:
    answer = with_a_bug(place, "head", "--json")
    assert (answer.returncode, '"internal-error"' in answer.stdout) == (70, True)


def test_a_closed_stdout_is_no_error(shared: Place) -> None:
    answer = shared.run("head", preexec_fn=lambda: os.close(1), stdout=None)
    assert (answer.code, answer.stderr) == (0, "")


def test_a_closed_stderr_does_not_put_messages_into_the_store(place: Place) -> None:
    before = (place.repository / "store/data.mdb").read_bytes()
    answer = place.run("log", "nothing-of-this-name", preexec_fn=lambda: os.close(2), stderr=None)
    assert (answer.code, answer.stdout) == (3, b"")
    assert (place.repository / "store/data.mdb").read_bytes() == before


def test_a_message_that_is_not_utf8_is_refused(place: Place) -> None:
    answer = place.run("import", "source", "-m", b"caf\xe9")
    assert (answer.code, "not UTF-8" in answer.stderr) == (2, True)


def test_a_call_without_a_verb_explains_itself(shared: Place) -> None:
    answer = shared.run()
    assert (answer.code, answer.stdout) == (2, b"")
    assert "Usage: fusecas" in answer.stderr


WORD = b"caf\xe9"


@pytest.mark.parametrize("call", [[b"has"], [b"get"], [b"log"], [b"ls"], [b"inspect"], [b"op", b"log"]])
def test_a_word_that_is_not_utf8_names_nothing(shared: Place, call: list[bytes]) -> None:
    assert shared.run(*call, WORD).code == (1 if call == [b"has"] else 3)


def test_a_user_whose_name_is_not_utf8_can_work(place: Place) -> None:
    done = subprocess.run([PROGRAM, "tag", "new"], cwd=place.folder, env={**os.environb, b"LOGNAME": WORD}, check=True)  # type: ignore[dict-item]
    assert done.returncode == 0
    assert "caf" in place.ok("op", "log").text


@pytest.mark.parametrize("call", ["ls", "ls nope", "ls --json", "ls nope --json"])
def test_where_nothing_can_be_said_the_exit_code_still_is(shared: Place, call: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([PROGRAM, *call.split()], cwd=shared.folder, env=ENVIRONMENT, stdout=full, stderr=full)
    assert done.returncode == (3 if "nope" in call else 6)


def test_json_as_a_value_is_no_option(place: Place) -> None:
    (place.folder / "source" / "more").write_text("more")
    answer = place.ok("import", "source", "-m", "--json")
    assert answer.text.startswith("layer ")


def test_get_writes_to_what_is_no_file_instead_of_replacing_it(shared: Place, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = shared.ok("hash", "source/c.txt").text.strip()
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    shared.ok("get", content, "-o", str(pipe))
    said, _ = reader.communicate(timeout=TIMEOUT)
    assert said == (shared.folder / "source" / "c.txt").read_bytes() and pipe.is_fifo()
