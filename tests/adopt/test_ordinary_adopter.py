"""Adopt and release by an ordinary user, who mounts through fusermount3."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.ordinary import IS_ROOT, USER, Ordinary

MAKE = """
mkdir -p project/d; echo hello > project/file; ln project/file project/d/linked; echo x > project/d/x
chmod 640 project/d/x; touch -d '2001-02-03 04:05:06.789012345' project/d/x project/file project/d
"""
SEE = "cd project && find . -mindepth 1 -printf '%P %y %m %U %G %n %T@\\n' | grep -v '^d d' | sort; cat file"


@pytest.fixture
def user() -> Iterator[Ordinary]:
    folder = Path(tempfile.mkdtemp(prefix="fusecas-adopter-"))
    user = Ordinary(folder)
    user.repository = user.folder / "project.fusecas"
    assert user.sh(MAKE).code == 0
    yield user
    user.close()
    shutil.rmtree(folder)


def test_a_folder_is_adopted_mounted_again_and_released(user: Ordinary) -> None:
    was = user.sh(SEE).text
    user.ok("adopt", "project")
    assert user.mounts() == [str(user.folder / "project")]
    assert user.sh(SEE).text == was and f"file f 644 {USER} {USER} 2 981173106.789012345" in was
    user.ok("umount", "project")
    assert user.sh("stat -c %a project; cat project/.fusecas").lines[:2] == [
        "555",
        "Not mounted. Run: fusecas mount .",
    ]
    assert "denied" in user.sh("touch project/x || true").stderr
    user.ok("mount", ".", cwd=user.folder / "project")
    assert user.sh("echo new > project/new; " + SEE).text != was
    user.ok("umount", "project")
    assert user.sh("stat -c %a project").text == "555\n", "what was lent to fusermount3 is as before"
    user.ok("release", "project")
    assert user.sh("rm project/new; touch -d '2001-02-03 04:05:06.789012345' project/d; " + SEE).text == was


def test_where_the_folder_can_not_be_renamed_it_is_refused(user: Ordinary) -> None:
    assert user.sh("mkdir above; mv project above; chmod 555 above").code == 0
    answer = user.run("adopt", "above/project")
    assert answer.code == 6 and "in a folder of your own" in answer.stderr
    assert user.sh("ls above; chmod 755 above").text == "project\n"


def test_what_can_not_be_read_is_refused(user: Ordinary) -> None:
    assert user.sh("chmod 000 project/file").code == 0
    answer = user.run("adopt", "project")
    assert answer.code == 6 and "d/linked: Permission denied" in answer.stderr
    assert user.sh("ls; chmod 644 project/file").text == "project\n"


def test_what_can_not_be_given_back_is_not_released(user: Ordinary) -> None:
    """A file of somebody else, which this user may read, but not make."""
    assert IS_ROOT, "a file of somebody else can be made by root alone"
    assert user.sh("chown 1234 project/d/x; chmod 644 project/d/x", user=0).code == 0
    user.ok("adopt", "project")
    answer = user.run("release", "project")
    assert answer.code == 4 and "d/x: owner 1234" in answer.stderr and "--lossy" in answer.stderr
    assert user.mounts() == [str(user.folder / "project")]
    answer = user.ok("release", "project", "--lossy")
    assert "could not set owner 1234" in answer.stderr
    owner = f"stat -c '%u %n' {shlex.quote(os.fspath(user.folder / 'project' / 'd' / 'x'))}"
    assert user.sh(owner).text.startswith(f"{USER} ")
