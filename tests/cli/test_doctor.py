"""`fusecas doctor`: each thing that it looks for is really missing once, in a mount namespace of its own."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fusecas import doctor
from tests.cli.calling import PROGRAM, Place
from tests.mount.ordinary import IS_ROOT, USER, Ordinary

Make = Callable[..., Ordinary]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes users whose machine lacks what `then` takes away."""
    assert IS_ROOT, "what a machine lacks can be arranged by root alone"
    folder = Path(tempfile.mkdtemp(prefix="fusecas-doctor-test-"))
    made = []

    def user(**how: Any) -> Ordinary:
        made.append(Ordinary(folder, **how))
        return made[0]

    yield user
    for each in made:
        each.close()
    shutil.rmtree(folder)


def checks_of(place: Place, code: int, *words: str) -> dict[str, dict[str, Any]]:
    answer = place.run("doctor", "--json", *words)
    assert answer.code == code, answer
    result = answer.result if code == 0 else answer.error["details"]
    assert result["ok"] is (code == 0)
    assert all(set(each) == {"name", "outcome", "said", "mend"} for each in result["checks"])
    assert all((each["mend"] is None) == (each["outcome"] == "ok") for each in result["checks"])
    return {each["name"]: each for each in result["checks"]}


def test_where_all_is_well_it_says_so(empty: Place) -> None:
    found = checks_of(empty, 0)
    assert {"device", "mounting", "pyfuse3", "kernel", "other users", "inotify", "watchman"} == set(found)
    empty.ok("init")
    assert {"repository", "file system", "space", "surroundings", "daemon"} <= set(checks_of(empty, 0))
    assert "ok" in empty.ok("doctor").text


def test_a_repository_that_is_named_must_be_there(empty: Place) -> None:
    assert empty.run("doctor", "--repo", "none").code == 3


def test_projects_around_the_workspace_are_named(empty: Place) -> None:
    """A tool that looks upwards would take them for its own; adopted, or elsewhere, it has none around it."""
    empty.ok("init")
    (empty.folder / "package.json").write_text("{}")
    (empty.folder / ".cargo").mkdir()
    (empty.folder / ".cargo" / "config.toml").touch()
    found = checks_of(empty, 0)["surroundings"]
    assert found["outcome"] == "warning"
    assert all(str(empty.folder / each) in found["said"] for each in ("package.json", ".cargo/config.toml"))


def test_an_ordinary_user_is_told_of_the_mount_that_was_tried(make: Make) -> None:
    user = make(allow_other=True)
    found = checks_of(user, 0)
    assert all(each["outcome"] == "ok" for each in found.values()), found
    assert "a mount was tried and works" in found["kernel"]["said"] and "set-uid root" in found["mounting"]["said"]
    assert user.mounts() == []


NO_DEVICE = "umount /dev/fuse; mount -t tmpfs -o mode=755 dev /dev; mknod -m 666 /dev/null c 1 3"
PLAIN = "cp /usr/bin/fusermount3 ../plain; mount --bind ../plain /usr/bin/fusermount3"
NOSUID = "mount --bind /usr/bin /usr/bin; mount -o remount,bind,nosuid /usr/bin"
MISSING: dict[str, tuple[dict[str, Any], str, str]] = {
    "a device for root alone": ({"device_mode": 0o600}, "device", "chmod 666"),
    "no device": ({"then": NO_DEVICE}, "device", "modprobe"),
    "fusermount3 without its bit": ({"then": PLAIN}, "mounting", "chmod 4755"),
    "set-uid ignored": ({"then": NOSUID}, "mounting", "nosuid"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_a_problem_with_a_way_to_mend_it(make: Make, what: str) -> None:
    how, name, mend = MISSING[what]
    found = checks_of(make(**how), 6)
    assert found[name]["outcome"] == "problem" and mend in found[name]["mend"], found
    assert "kernel" not in found, "a mount that can't be is not tried"


def test_a_user_without_fusermount3_is_told_the_package(make: Make) -> None:
    found = checks_of(make(then="mount --bind /dev/null /usr/bin/fusermount3"), 6)
    assert found["mounting"]["mend"] == "install the package fuse3"


def run_as(user: Ordinary, *before: str) -> dict[str, Any]:
    process = user.start_as(0, *before, PROGRAM, "doctor", "--json", stdout=-1)
    document = json.loads(process.communicate(timeout=30)[0])
    checks = document["error"]["details"]["checks"]
    return {each["name"]: each for each in checks}


def test_a_sandbox_without_new_privileges_is_told(make: Make) -> None:
    found = run_as(make(), "setpriv", "--no-new-privs", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    assert "no_new_privs" in found["mounting"]["said"]


def test_root_in_a_container_that_may_not_mount_is_told(make: Make) -> None:
    found = run_as(make(), "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert "--cap-add SYS_ADMIN" in found["mounting"]["mend"]


def test_what_is_only_worse_is_a_warning(make: Make) -> None:
    """All at once: each is looked at on its own."""
    few = "echo 8192 > ../few; mount --bind ../few /proc/sys/fs/inotify/max_user_watches"
    user = make(then=f"{few}; {small_disk(500)}")
    user.ok("init")
    assert user.sh("chmod 755 .fusecas").code == 0
    found = checks_of(user, 0)
    mends = {name: each["mend"] for name, each in found.items() if each["outcome"] == "warning"}
    assert set(mends) == {"other users", "inotify", "file system", "space", "repository"}
    for name, part in {"other users": "user_allow_other", "inotify": "sysctl", "repository": "chmod 700"}.items():
        assert part in mends[name]


def test_too_few_watchers_are_a_warning(make: Make) -> None:
    user = make(then="echo 8 > ../few; mount --bind ../few /proc/sys/fs/inotify/max_user_instances")
    assert "max_user_instances" in checks_of(user, 0)["inotify"]["mend"]


def small_disk(megabytes: int) -> str:
    return f"mount -t tmpfs -o size={megabytes}m,mode=755,uid={USER} small ."


def test_a_full_disk_is_a_problem(make: Make) -> None:
    user = make(allow_other=True, then=small_disk(60))
    user.ok("init")
    assert checks_of(user, 6)["space"]["outcome"] == "problem"


def test_the_repository_of_another_user_is_a_problem(make: Make) -> None:
    user = make()
    user.ok("init")
    process = user.start_as(0, "chown", "-R", "0", user.repository)
    assert process.wait() == 0
    process = user.start_as(0, "chmod", "755", user.repository)
    assert process.wait() == 0
    found = checks_of(user, 6)
    assert found["repository"]["outcome"] == "problem" and "user 0" in found["repository"]["said"]


def test_watchman_that_refuses_fuse_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watchman.json").write_text('{"illegal_fstypes": ["nfs", "fuse"]}')
    monkeypatch.setattr(doctor, "WATCHMAN", tmp_path / "watchman.json")
    assert doctor.watchman().outcome == "warning"


@pytest.mark.parametrize(
    ("kind", "outcome"), [("nfs4", "problem"), ("ext4", "ok"), ("fuse.sshfs", "problem"), ("fuse.x", "warning")]
)
def test_the_innermost_file_system_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, outcome: str
) -> None:
    """A network file system can't be had on demand: the table of mounts is given."""
    table = [(b"/", "ext4", b""), (os.fsencode(tmp_path), "nfs", b""), (os.fsencode(tmp_path), kind, b"")]
    monkeypatch.setattr(doctor, "mount_lines", lambda: table)
    assert doctor.file_system(tmp_path).outcome == outcome
    monkeypatch.setattr(doctor, "mount_lines", lambda: [*table, (os.fsencode(tmp_path) + b"x", "cifs", b"")])
    assert doctor.file_system(tmp_path).outcome == outcome


def test_a_daemon_is_asked_and_one_that_was_killed_or_stopped_is_told(make: Make) -> None:
    user = make(allow_other=True)
    user.ok("init")
    user.mount()
    pid = user.pid()
    assert f"process {pid} answers" in checks_of(user, 0)["daemon"]["said"]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = checks_of(user, 6)["daemon"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "does not answer" in found["said"] and f"kill {pid}" in found["mend"]
    user.signal(signal.SIGKILL)
    found = checks_of(user, 0)["daemon"]
    assert found["outcome"] == "warning" and str(user.work) in found["said"]
