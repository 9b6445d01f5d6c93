"""The process that uses the API stays as it was: its children, signals, terminal, threads and forks are its own."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fusecas
from fusecas.client import Client
from tests.api.conftest import Project
from tests.cli.calling import read_all
from tests.mount.conftest import wait_for

TIMEOUT = 60
HOST = """
import ctypes, json, os, signal, sys, termios, threading
import fusecas

def subreaper():
    answer = ctypes.c_int(-1)
    assert ctypes.CDLL(None).prctl(37, ctypes.byref(answer), 0, 0, 0) == 0
    return answer.value

def here():
    terminal = [repr(termios.tcgetattr(0)), os.tcgetpgrp(0)] if os.isatty(0) else None
    handlers = [repr(signal.getsignal(each)) for each in sorted(signal.valid_signals())]
    return [subreaper(), handlers, terminal, os.getpgrp(), os.getsid(0), os.umask(0o022), os.getcwd(), dict(os.environ)]

seen = []
signal.signal(signal.SIGCHLD, lambda *_: seen.append("child"))
signal.signal(signal.SIGINT, lambda *_: seen.append("interrupt"))
child = os.fork()
if child == 0:
    signal.pause()
    os._exit(7)
before = here()
with fusecas.open(sys.argv[1], create=True) as repo:
    work = repo.workspace()
    work.run("setsid sleep 600 & sleep 600 & echo x > x; trap '' INT; kill -INT 0; kill -TSTP 0 || true")
    work.undo()
    work.run("exit 3")
    work.exec("sleep 0.01 & echo y > y")
    work.run("echo late; sleep 600", timeout=0.1)
    assert here() == before, [before, here()]
    assert os.waitpid(-1, os.WNOHANG) == (0, 0), "somebody else's child is ours"
    repo.umount()
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(-1, 0)[0] == child
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        print("as it was", "interrupt" in seen)
"""


def host(project: Project) -> list[str]:
    return [sys.executable, "-c", HOST, str(project.folder)]


def test_the_host_keeps_its_children_signals_and_settings(project: Project) -> None:
    how = {"capture_output": True, "text": True, "timeout": TIMEOUT, "cwd": "/"}
    # In a session of its own: what is signalled must not be the tests themselves, should it not be as it says.
    done = subprocess.run(host(project), start_new_session=True, **how)  # type: ignore[call-overload]
    assert (done.stdout, done.stderr) == ("as it was False\n", "")


def test_the_host_keeps_its_terminal(project: Project) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "-c", *host(project)], stdin=slave, stdout=slave, stderr=slave, close_fds=True
    )
    os.close(slave)
    assert read_all(master) == "as it was False\n"
    assert process.wait(TIMEOUT) == 0


def test_a_run_works_from_any_thread_and_others_are_told_that_one_is_on(
    project: Project, work: fusecas.Workspace
) -> None:
    started = project.folder / "started"
    go_on = project.folder / "go"
    os.mkfifo(go_on)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work.run, f"touch {started}; read x < {go_on}; echo x > x")
        until(started.exists)
        assert work.status().clean and work.history() == []
        for moves in (lambda: work.run("true"), work.undo, work.commit):
            with pytest.raises(fusecas.InUse, match="running"):
                moves()
        go_on.write_text("go\n")
        assert running.result(TIMEOUT).hash == work.head()


def test_a_run_waits_its_turn_if_it_is_asked_to(project: Project, work: fusecas.Workspace) -> None:
    go_on, started = project.folder / "go", project.folder / "started"
    os.mkfifo(go_on)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(work.run, f"touch {started}; read x < {go_on}; echo 1 > 1")
        until(started.exists)
        second = pool.submit(work.run, "cat 1 > 2", wait=True)
        go_on.write_text("go\n")
        assert first.result(TIMEOUT).ok and second.result(TIMEOUT).ok
    assert (work.path / "2").read_text() == "1\n"


def test_threads_share_one_repo(repo: fusecas.Repo, work: fusecas.Workspace) -> None:
    work.run("echo base > base")
    forks = [work.fork(f"fork-{each}") for each in range(4)]

    def use(fork: fusecas.Workspace) -> list[str | None]:
        found = [fork.run(f"echo {each} >> lines; cat lines").hash for each in range(5)]
        fork.undo(2)
        fork.run("echo 3 >> lines; cat lines")
        fork.tag(fork.name)
        assert [each.hash for each in fork.history()[1:]][:3] == found[:3] and fork.status().clean
        return found

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(use, forks))
        looked = [pool.submit(each) for each in (work.status, work.history, repo.tags, work.head) * 10]
        assert all(each.exception() is None for each in looked)
    # The same work on the same content has the same ids, whoever does it, and in whatever order.
    assert all(each == done[0] for each in done) and len(repo.tags()) == 4


def test_twenty_clients_at_once_on_one_socket(project: Project, work: fusecas.Workspace) -> None:
    work.run("echo base > base")
    forks = [work.fork(f"client-{each}").name for each in range(20)]
    script = (
        "import sys, fusecas\n"
        "with fusecas.open(sys.argv[1]) as repo:\n"
        "    work = repo.workspace(sys.argv[2])\n"
        "    came = [work.run(f'echo {each} > {each}') for each in range(3)]\n"
        "    assert work.status().clean and work.diff('@~3', '@').added == ('0', '1', '2')\n"
        "    (work.path / 'mine').write_text(work.name)\n"
        "    assert work.undo().changed == 0 and work.redo().added == 1\n"
        "    print(came[-1].hash)\n"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", script, str(project.folder), each], stdout=subprocess.PIPE, text=True)
        for each in forks
    ]
    said = [each.communicate(timeout=2 * TIMEOUT)[0] for each in clients]
    assert [each.returncode for each in clients] == [0] * 20 and len(set(said)) == 1


def test_a_hit_starts_no_process(project: Project, work: fusecas.Workspace) -> None:
    """Counted by the kernel: the number of the last process that was made anywhere in this system would move."""
    text = project.counted("echo x > x")
    work.run(text)
    work.undo()
    events: list[str] = []
    sys.addaudithook(lambda event, _: events.append(event) if event in ("subprocess.Popen", "os.fork") else None)
    assert work.run(text).cached and events == []
    work.run("echo y > y")
    assert events == ["subprocess.Popen"]


def test_a_forked_process_opens_its_own(project: Project, repo: fusecas.Repo, work: fusecas.Workspace) -> None:
    work.run("echo x > x")

    def child() -> None:
        with pytest.raises(fusecas.UsageError, match="before a fork"):
            work.status()
        with fusecas.open(project.folder) as own:
            own.workspace().run("echo child > child")
        repo.close()

    assert forked(child) == 0
    assert (work.path / "child").exists() and work.run("echo parent > parent").hash == work.head()
    assert [each.instruction for each in work.history()] == ["echo x > x", "echo child > child", "echo parent > parent"]


def forked(act: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until(is_so: Callable[[], bool]) -> None:
    give_up = time.monotonic() + TIMEOUT
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.01)


# ---- what breaks off


def sleepers(mark: str) -> list[int]:
    """Processes with these words."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                words = (each / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in words and b"fusecas" not in words:
                found.append(int(each.name))
    return found


def test_an_exception_in_the_host_ends_the_run_before_it_is_heard_of(project: Project, work: fusecas.Workspace) -> None:
    """Ctrl-C in the host, say."""
    started, mark = project.folder / "started", f"sleep 987{os.getpid()}"
    work.run("echo base > base")

    def interrupt() -> None:
        until(started.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        work.run(f"echo half > half; touch {started}; {mark}; true")
    thread.join()
    assert sleepers(mark) == []
    assert work.status().added == ("half",) and work.run("rm half").hash
    assert project.ok("runs", "--json").result[1]["status"] == "interrupted"


def test_the_host_killed_ends_the_run(project: Project, work: fusecas.Workspace) -> None:
    started, mark = project.folder / "started", f"sleep 986{os.getpid()}"
    forked = project.folder / "forked"
    script = (
        "import os, pathlib, signal, sys, threading, fusecas\n"
        "with fusecas.open(sys.argv[1]) as repo:\n"
        "    threading.Thread(target=repo.workspace().run, args=sys.argv[2:3]).start()\n"
        "    input()\n"
        "    if os.fork() == 0:\n"  # it holds all that its parent has open
        "        pathlib.Path(sys.argv[3]).touch()\n"
        "        signal.pause()\n"
        "    signal.pause()\n"
    )
    text = f"echo half > half; touch {started}; {mark}; true"
    words = [sys.executable, "-c", script, str(project.folder), text, str(forked)]
    process = subprocess.Popen(words, start_new_session=True, stdin=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    until(started.exists)
    process.stdin.write(b"\n")
    until(forked.exists)
    process.kill()
    process.stdin.close()
    process.wait(TIMEOUT)
    until(lambda: not sleepers(mark))
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: bool(project.ok("runs", "--json").result[0]["status"] == "interrupted"))
    assert work.status().added == ("half",) and work.run("rm half").exit_code == 0


def test_the_child_killed_is_an_error_and_the_workspace_is_free(project: Project, work: fusecas.Workspace) -> None:
    with pytest.raises(fusecas.EnvironmentProblem, match="has died: killed"):
        work.run("kill -9 $PPID; sleep 600")
    assert work.run("echo x > x").hash and work.exec("pgrep -fx 'sleep 600'").exit_code in (0, 1)


def test_the_daemon_killed_ends_the_command(project: Project, work: fusecas.Workspace) -> None:
    mark = f"sleep 985{os.getpid()}"
    started = project.folder / "started"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work.run, f"echo half > half; touch {started}; {mark}; true")
        until(started.exists)
        project.kill()
        with pytest.raises(fusecas.EnvironmentProblem, match="the daemon has gone"):
            running.result(TIMEOUT)
    assert sleepers(mark) == []
    assert work.path.is_dir() and work.status().added == ("half",)


def test_the_next_call_finds_the_next_daemon(project: Project, work: fusecas.Workspace) -> None:
    work.run("echo x > x")
    assert work.status().clean
    with Client(project.repository) as client:
        daemon = os.pidfd_open(client.call("hello")["pid"])
    project.umount()
    wait_for(daemon)
    os.close(daemon)
    assert work.status().clean  # without a daemon
    project.ok("mount")
    assert work.run("echo y > y").hash and work.status().clean


# ---- opening and closing


def test_opening_what_is_not_there(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(fusecas.RepositoryNotFound, match="has no repository"):
            fusecas.open(place)
    assert not (tmp_path / "nothing").exists()
    with fusecas.open(tmp_path / "new", create=True) as made, fusecas.open(tmp_path / "new", create=True) as same:
        assert made.folder == same.folder == tmp_path / "new" / ".fusecas"
    with fusecas.open(str(tmp_path / "new" / ".fusecas")) as named:
        assert named.workspaces() == ("main",)
    with pytest.raises(fusecas.AlreadyExists):
        fusecas.init(tmp_path / "new")


def test_it_can_be_open_many_times_in_one_process(project: Project) -> None:
    with fusecas.init(project.folder) as one, fusecas.open(project.folder) as other:
        one.workspace().run("echo x > x")
        one.close()
        one.close()
        with pytest.raises(fusecas.UsageError, match="is closed"):
            one.workspace()
        assert other.workspace().head()
        with other.workspace() as work:
            assert work.status().clean
        other.umount()


def test_clear_begins_again_and_puts_the_old_one_aside(project: Project, repo: fusecas.Repo) -> None:
    work = repo.workspace()
    layer = work.run("echo x > x").hash
    with fusecas.open(project.folder) as other, pytest.raises(fusecas.InUse, match="more than once"):
        other.clear()
    aside = repo.clear()
    assert aside is not None and aside.name.startswith(".fusecas.removed-")
    assert work.head() is None and work.history() == [] and work.run("echo y > y").hash
    with fusecas.open(aside) as old:
        assert old.workspace().head() == layer
    with subprocess.Popen(["sleep", "60"], cwd=project.work) as sleeper:
        with pytest.raises(fusecas.InUse):
            repo.clear()
        sleeper.kill()
    assert work.head() is not None
    assert repo.clear(purge=True) is None
    assert sorted(each.name for each in project.folder.glob(".fusecas*")) == [".fusecas", aside.name]


def test_an_adopted_folder_is_opened_by_its_name_and_not_cleared_away(project: Project) -> None:
    folder = project.folder / "adopted"
    folder.mkdir()
    (folder / "file").write_text("mine")
    project.ok("adopt", str(folder))
    project.repository, project.work = project.folder / "adopted.fusecas", folder
    for _ in range(2):  # mounted, and only its pointer
        with fusecas.open(folder) as repo:
            assert repo.folder == project.repository
            work = repo.workspace()
            assert work.history()[0].kind == "import" and work.status().clean
            with pytest.raises(fusecas.Refused, match="was adopted"):
                repo.clear()
            assert work.run("cat file").stdout == "mine" and work.path == folder
            repo.umount()
    project.ok("release", str(folder), "--lossy")
    assert (folder / "file").read_text() == "mine"


def test_results_cannot_be_changed(work: fusecas.Workspace) -> None:
    came = work.run("echo x > x")
    for result, name in ((came, "hash"), (work.status(), "added"), (work.inspect(), "size"), (work.diff(), "new")):
        with pytest.raises((AttributeError, TypeError)):
            setattr(result, name, "other")
    assert json.loads(json.dumps(work.status().added)) == []
