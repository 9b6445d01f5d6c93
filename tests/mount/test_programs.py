"""Real programs work in the mount as they do on any disk."""

import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted

GIT = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def environment() -> dict[str, str]:
    """Without what a caller may have set for builds of his own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PIP_", "CARGO_TARGET"))}


@pytest.fixture
def git(mounted: Mounted) -> dict[str, str]:
    return {**environment(), **GIT, "HOME": os.fspath(mounted.folder), "GIT_CONFIG_NOSYSTEM": "1"}


def test_git_works_in_it(mounted: Mounted, git: dict[str, str]) -> None:
    mounted.shell(
        "git init -q r && cd r && mkdir -p a/b && for i in $(seq 100); do echo $i > a/b/$i; done\n"
        "git add . && git commit -qm one && for i in $(seq 50); do echo x >> a/b/$i; done && git commit -qam two\n"
        "git gc -q && git fsck --strict && git clone -q . ../copy && test $(git -C ../copy rev-list --count HEAD) = 2\n"
        "git worktree add -q ../tree HEAD~1",
        env=git,
    )
    mounted.ok("commit")
    mounted.umount()
    mounted.mount()
    for where in ("r", "copy", "tree"):
        assert mounted.shell(f"git -C {where} status --porcelain", env=git) == ""
    assert mounted.shell("git -C r fsck --strict 2>&1", env=git) == ""


def test_git_looks_into_no_file_again_after_a_new_mount(mounted: Mounted, git: dict[str, str]) -> None:
    """It would write another index, if any number or time of a file had changed."""
    mounted.shell(
        "git init -q && mkdir d && for i in $(seq 50); do echo $i > d/$i; done && touch -d 2001-01-01 d/*\n"
        "git add . && git commit -qm one && git status --porcelain",
        env=git,
    )
    index = mounted.work / ".git" / "index"
    before, number = index.read_bytes(), index.stat().st_ino
    for again in (mounted.kill, lambda: mounted.ok("commit") and mounted.umount()):
        again()
        mounted.mount()
        assert mounted.shell("git status --porcelain", env=git) == ""
        assert (index.read_bytes(), index.stat().st_ino) == (before, number)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite_works_in_it(mounted: Mounted, journal: str) -> None:
    script = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect('db', timeout=60)\n"
        "for at in range(60):\n"
        "    with db: db.execute('insert into t values (?)', (int(sys.argv[1]) * 1000 + at,))\n"
    )
    with sqlite3.connect(mounted.work / "db") as db:
        db.execute(f"pragma journal_mode={journal}")
        db.execute("create table t (x integer primary key)")
    db.close()
    writers = [subprocess.Popen([sys.executable, "-c", script, str(at)], cwd=mounted.work) for at in range(3)]
    mounted.ok("commit")
    assert [each.wait() for each in writers] == [0] * 3
    db = sqlite3.connect(mounted.work / "db")
    assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert db.execute("select count(*) from t").fetchone() == (180,)
    db.close()


def test_a_c_project_builds_in_it(mounted: Mounted) -> None:
    (mounted.work / "main.c").write_text('#include <stdio.h>\nint main(void) { puts("built"); return 0; }\n')
    (mounted.work / "Makefile").write_text("main: main.c\n\tcc -O1 -o main main.c\n")
    assert "cc -O1" in mounted.shell("make")
    assert "up to date" in mounted.shell("make")
    assert mounted.shell("./main") == "built\n"


def wheel(folder: Path) -> Path:
    """A package of one module and one command."""
    made = folder / "small-1.0-py3-none-any.whl"
    info = "small-1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("small/__init__.py", "def main() -> None:\n    print('it runs')\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nsmall = small:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return made


def test_pip_installs_into_a_virtual_environment_in_it(mounted: Mounted) -> None:
    package, clean = wheel(mounted.folder), environment()
    pip = f"{sys.executable} -m pip --python venv/bin/python"
    mounted.shell(f"{sys.executable} -m venv --without-pip venv && {pip} install -q --no-index {package}", env=clean)
    assert mounted.shell("venv/bin/small") == "it runs\n"
    mounted.ok("commit")
    mounted.umount()
    mounted.mount()
    assert mounted.shell(f"venv/bin/small && {pip} check", env=clean).startswith("it runs\n")
    mounted.shell(f"{pip} uninstall -qy small", env=clean)
    assert not (mounted.work / "venv" / "bin" / "small").exists()


def test_cargo_builds_in_it_and_again_only_what_changed(mounted: Mounted) -> None:
    clean = environment()
    mounted.shell(
        "mkdir -p p/src && cd p && echo 'fn main() { println!(\"built\"); }' > src/main.rs\n"
        'printf \'[package]\\nname = "p"\\nversion = "0.1.0"\\nedition = "2021"\\n\' > Cargo.toml',
    )
    build = "cd p && cargo build --offline 2>&1 && target/debug/p"
    assert "Compiling" in mounted.shell(build, env=clean)
    mounted.ok("commit")
    mounted.umount()
    mounted.mount()
    again = mounted.shell(build, env=clean)
    assert "Compiling" not in again and again.endswith("built\n")


def test_rsync_goes_there_and_back_and_finds_nothing_to_do_then(mounted: Mounted) -> None:
    source = mounted.folder / "source"
    subprocess.run(["cp", "-a", Path(__file__).parents[2] / "fusecas", source], check=True)
    os.link(source / "errors.py", source / "store" / "linked")
    os.symlink("errors.py", source / "link")
    os.mkfifo(source / "fifo")
    os.chown(source / "client.py", 1000, 7)
    os.setxattr(source / "client.py", "user.note", b"kept")
    (source / "client.py").chmod(0o4750)
    with (source / "holes").open("wb") as file:
        file.seek(1_000_000)
        file.write(b"end")
    subprocess.run(["setfacl", "-R", "-m", "u:1000:rwX,d:u:1000:rwX", source / "store"], check=True)
    differences = "rsync -aHAX --checksum --delete --dry-run --itemize-changes"
    mounted.shell(f"rsync -aHAX {source}/ tree/")
    assert mounted.shell(f"{differences} {source}/ tree/") == ""
    mounted.ok("commit")
    mounted.umount()
    mounted.mount()
    mounted.shell(f"rsync -aHAX --sparse tree/ {mounted.folder}/back/")
    assert mounted.shell(f"{differences} {source}/ tree/ && {differences} {source}/ {mounted.folder}/back/") == ""


def test_a_large_tree_is_removed(mounted: Mounted) -> None:
    """Half of it committed, half of it not."""
    script = (
        "import os, sys\n"
        "for d in range(20):\n"
        "    os.makedirs(f'{sys.argv[1]}/{d}/deeper')\n"
        "    for f in range(30): open(f'{sys.argv[1]}/{d}/deeper/{f}', 'w').write(f'{d}')\n"
    )
    subprocess.run([sys.executable, "-c", script, mounted.work / "old"], check=True)
    mounted.ok("commit")
    subprocess.run([sys.executable, "-c", script, mounted.work / "new"], check=True)
    mounted.shell("rm -rf old new")
    assert os.listdir(mounted.work) == []
    assert mounted.changes() == {"old": "D"}
    mounted.ok("commit")
    assert mounted.changes() == {} and mounted.ok("ls").text == ""


def test_a_tree_goes_through_tar_and_back(mounted: Mounted, tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["cp", "-a", os.fspath(Path(__file__).parents[2] / "fusecas"), source], check=True)
    os.link(source / "errors.py", source / "linked")
    os.setxattr(source / "errors.py", "user.note", b"kept")
    mounted.shell(f"tar --xattrs -C {source} -cf - . | tar --xattrs -xf - && tar --xattrs --sort=name -cf ../one.tar .")
    subprocess.run(["tar", "--xattrs", "--sort=name", "-C", source, "-cf", tmp_path / "two.tar", "."], check=True)
    listing = [
        subprocess.run(["tar", "-tvf", tmp_path / name], check=True, capture_output=True).stdout
        for name in ("one.tar", "two.tar")
    ]
    assert listing[0] == listing[1]
    mounted.shell("find . -mindepth 1 -delete")
    assert os.listdir(mounted.work) == [] and mounted.changes() == {}
