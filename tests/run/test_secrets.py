"""Values of variables, and what a command reads, are in no stored byte: not in objects, compressed or not, in rows,
journals, logs, nor in what is said of runs. What the command itself writes down is its own doing."""

import os
import subprocess
from pathlib import Path

from fusecas.client import Client
from fusecas.store import packs
from fusecas.store.repository import Repository
from fusecas.store.tables import Table
from tests.cli.calling import PROGRAM, TIMEOUT
from tests.run.conftest import Runner
from tests.run.test_bracket import until

PLANTED = {
    "PLANTED": "a-planted-value-0123456789",
    "CFLAGS": "-DKEY=planted-among-flags-4711",
    "MY_SECRET": "planted-and-secret-9876543210",
    "API_TOKEN": "planted-token-abcdefgh",
}
BY_OPTION, READ = "planted-by-an-option-5555", "planted-in-what-is-read-7777"
SECRETS = [*PLANTED.values(), BY_OPTION, READ]
HARMLESS = "this is in a file that compresses well"


def found_in(runner: Runner, words: list[str]) -> dict[str, list[str]]:
    """Where each word is stored: every object as it was put, every row of every table, every file of the repository."""
    looked_at: dict[str, list[str]] = {word: [] for word in words}

    def look(where: str, data: bytes) -> None:
        for word, places in looked_at.items():
            if word.encode() in data:
                places.append(where)

    with Repository.open(runner.repository) as repository, repository.store.read() as snapshot:
        for object_id, _ in packs.raw_rows(snapshot.kv, b""):
            row, data = snapshot.read_object(object_id)
            look(f"object {object_id.hex()} of kind {row.kind}", data)
        for table in Table:
            for key, value in snapshot.kv.scan(table):
                look(f"table {table}", bytes(key))
                look(f"table {table}", bytes(value))
    for folder, _, names in os.walk(runner.repository):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and runner.work not in path.parents:
                look(str(path), path.read_bytes())
    return {word: places for word, places in looked_at.items() if places}


def test_values_of_variables_and_what_is_read_are_in_no_stored_byte(runner: Runner) -> None:
    runner.json(f"for i in $(seq 1000); do echo {HARMLESS}; done > made", env=PLANTED)
    runner.json("wc made > counted", env=PLANTED)
    runner.ok("undo")
    assert runner.json("wc made > counted", env=PLANTED)["cached"] is True
    runner.ok("undo")
    near = runner.run("run", "wc made > counted", env={**PLANTED, "CFLAGS": BY_OPTION})
    assert "missed only by CFLAGS" in near.stderr
    assert runner.run("run", "--on-failure", "rollback", "rm made; exit 1", env=PLANTED).code == 1
    assert runner.run("run", "rm counted; exit 1", env=PLANTED).code == 1
    runner.json("--retry", "rm counted; exit 1", env=PLANTED, code=1)
    runner.json("--", "touch", "by words", env=PLANTED)
    runner.json("-e", f"OTHER={BY_OPTION}", f"--env=MORE={BY_OPTION}", "touch optional")
    runner.json("--stdin", "-", "wc > read", input=READ.encode())
    runner.json(f"{PROGRAM} run 'touch nested'", env=PLANTED)
    runner.ok("exec", "true", env=PLANTED)
    runner.ok("exec", f"-eOTHER={BY_OPTION}", "true")
    runner.ok("shell", env=PLANTED, input=b"touch in-shell\n")
    runner.run("batch", "-ke", f"OTHER={BY_OPTION}", "-", env=PLANTED, input=b"touch one\nfalse\ntouch two\n")
    with Client(runner.repository) as client:
        refused = [["A", f"\0{BY_OPTION}"]], [["A", f"\ud800{BY_OPTION}"]], [[BY_OPTION, "1"], [BY_OPTION, "2"]]
        for env in refused:
            assert _is_refused(client, env)
    interrupted_beside_a_look(runner)
    for words in (("runs", "--json"), ("op", "log", "--json"), ("log", "--json"), ("history", "--json"), ("op", "log")):
        said = runner.ok(*words).text
        assert not [word for word in SECRETS if word in said], words
    runner.kill()
    assert found_in(runner, SECRETS) == {}
    runner.ok("mount")
    runner.ok("gc", "--min-age", "0")
    runner.ok("umount")
    assert found_in(runner, SECRETS) == {}
    where = found_in(runner, [HARMLESS, "touch optional"])
    assert any(each.startswith("object") for each in where[HARMLESS])  # it would be found
    assert any(each.startswith("table records") for each in where["touch optional"])


def _is_refused(client: Client, env: list[list[str]]) -> bool:
    from fusecas.errors import UsageError

    try:
        client.call("run.begin", program={"shell": ["true"]}, env=env)
    except UsageError:
        return True
    return False


def interrupted_beside_a_look(runner: Runner) -> None:
    """While the command is on, and after the program is killed."""
    variables = {**os.environ, **PLANTED}
    with_input = f"{PROGRAM} run --stdin - 'touch {runner.folder}/reads; cat > /dev/null; sleep 100'"
    with subprocess.Popen(
        ["sh", "-c", f"printf %s {READ} | exec {with_input}"],
        env=variables,
        cwd=runner.folder,
        stderr=subprocess.DEVNULL,
    ) as process:
        until((runner.folder / "reads").exists)
        assert found_in(runner, SECRETS) == {}
        os.kill(int(executor_of(runner)), 9)
        process.wait(TIMEOUT)
    until(lambda: runner.run("run", "true").code == 0)


def executor_of(runner: Runner) -> str:
    """The pid of the program that runs a command: the parent of who has the number of the run."""
    from fusecas.run.leftovers import processes_of

    with Repository.open(runner.repository) as repository, repository.store.read() as snapshot:
        number = next(snapshot.records_back())[0]
    first = min(processes_of(number))
    return Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1]
