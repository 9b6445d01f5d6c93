"""What can't be adopted or released is refused, with the reason and the way out, and nothing is changed."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusecas.mount.device import is_mounted
from tests.adopt import hostile
from tests.adopt.conftest import Project

Make = Callable[[Project], object]


def mount_something(project: Project, place: Path) -> None:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)


@pytest.fixture(autouse=True)
def no_mount_stays(tmp_path: Path) -> Iterator[None]:
    yield
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place, kind = line.split()[1:3]
        if kind == "tmpfs" and Path(place).is_relative_to(tmp_path):
            subprocess.run(["umount", place], check=True)


REFUSED: dict[str, tuple[Make, int, str]] = {
    "something at DIR.before-fusecas": (lambda each: each.before.mkdir(), 4, "rename or remove it"),
    "something at DIR.new": (lambda each: each.new.symlink_to("nowhere"), 4, "rename it"),
    "something at DIR.fusecas": (lambda each: each.repository.write_text("x"), 4, "no repository"),
    "two repositories": (lambda each: (each.ok("init", "project"), each.repository.mkdir()), 4, "both there"),
    "a mount": (lambda each: mount_something(each, each.work), 4, "is a mount"),
    "a mount below": (lambda each: mount_something(each, each.work / "below"), 4, "below is a mount"),
    "a repository below": (lambda each: each.ok("init", "project/src"), 4, "src/.fusecas in"),
    "a name that fusecas keeps": (
        lambda each: (each.work / ".fusecas").mkdir(),
        4,
        ".fusecas: a name that fusecas keeps",
    ),
    "an xattr that is not kept": (
        lambda each: os.setxattr(each.work / "README", "security.other", b"x"),
        4,
        "README: xattr security.other",
    ),
    "a long name": (lambda each: each.work.rename(each.folder / ("x" * 245)), 3, "no such folder"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_in_the_way_is_told_before_anything_is_moved(project: Project, what: str) -> None:
    make, code, said = REFUSED[what]
    make(project)
    was = hostile.look(project.folder)
    answer = project.run("adopt", "project")
    assert answer.code == code and said in answer.stderr, answer
    assert hostile.look(project.folder) == was


@pytest.mark.parametrize(
    ("folder", "code", "said"),
    [("/", 4, "root of the file system"), ("none", 3, "no such folder"), ("project/README", 4, "no folder")],
)
def test_what_is_no_folder_is_refused(project: Project, folder: str, code: int, said: str) -> None:
    answer = project.run("adopt", folder)
    assert answer.code == code and said in answer.stderr, answer


def test_a_name_without_room_for_what_lies_beside_it_is_refused(project: Project) -> None:
    project.work.rename(project.folder / ("x" * 245))
    answer = project.run("adopt", "x" * 245)
    assert answer.code == 4 and "too long" in answer.stderr
    assert project.names == ["x" * 245]


def test_lossy_goes_on_and_names_what_is_left_out(project: Project) -> None:
    (project.work / ".fusecas").mkdir()
    (project.work / ".fusecas" / "file").write_text("mine\n")
    answer = project.adopt("--lossy")
    assert "left out .fusecas: belongs to fusecas" in answer.stderr
    assert (project.before / ".fusecas" / "file").read_text() == "mine\n"
    assert sorted(os.listdir(project.work)) == ["README", "src"]


def test_an_adopted_folder_is_not_adopted_again(project: Project) -> None:
    project.adopt()
    answer = project.run("adopt", "project")
    assert answer.code == 4 and "adopted already" in answer.stderr
    answer = project.run("adopt", "project/src")
    assert answer.code == 4 and f"in a workspace already, that of {project.work}" in answer.stderr
    answer = project.run("adopt", str(project.repository))
    assert answer.code == 4 and "is a repository itself" in answer.stderr


def test_where_nothing_can_be_mounted_nothing_is_moved(project: Project) -> None:
    was = hostile.look(project.folder)
    words = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/fuse && exec "$0" "$@"']
    answer = project.sh(f"{' '.join(words[:3])} -c '{words[4]}' \"$0\" adopt project")
    assert answer.code == 6, answer
    assert hostile.look(project.folder) == was


def test_a_full_disk_leaves_the_folder_as_it_was(project: Project) -> None:
    mount_something(project, project.folder / "small")
    subprocess.run(["mount", "-o", "remount,size=6m", project.folder / "small"], check=True)
    folder = project.folder / "small" / "project"
    folder.mkdir()
    (folder / "noise").write_bytes(os.urandom(4 << 20))
    was = hostile.look(folder)
    answer = project.run("adopt", "small/project")
    assert answer.code == 6 and "space" in answer.stderr, answer
    assert hostile.look(folder) == was and os.listdir(folder.parent) == ["project"]


def test_a_repository_without_an_adopted_folder_can_not_be_released(project: Project) -> None:
    project.ok("init")
    answer = project.run("release", "project")
    assert answer.code == 4 and "fusecas export" in answer.stderr


def test_something_at_the_name_of_the_released_folder_keeps_it_from_being_released(project: Project) -> None:
    project.adopt()
    project.released.mkdir()
    (project.released / "mine").touch()
    answer = project.run("release", "project")
    assert answer.code == 4 and "is there already" in answer.stderr
    assert is_mounted(project.work) and (project.released / "mine").exists()


def test_what_is_put_into_the_pointer_folder_is_never_hidden_or_removed(project: Project) -> None:
    project.adopt()
    project.umount()
    (project.work / "mine").write_text("precious\n")
    for call in (("mount", "project", "--repo", str(project.repository)), ("release", "project")):
        answer = project.run(*call)
        assert answer.code == 4 and "holds more than the pointer" in answer.stderr, answer
        assert "move what else is in it" in answer.stderr
    assert (project.work / "mine").read_text() == "precious\n"
    (project.work / "mine").unlink()
    project.release()


def test_what_is_refused_leaves_a_workspace_in_the_folder_mounted(project: Project) -> None:
    project.ok("run", "echo made > by-run", cwd=project.work)
    inner = project.work / ".fusecas" / "work"
    os.setxattr(project.work / "README", "security.other", b"x")
    assert project.run("adopt", "project").code == 4
    assert is_mounted(inner) and (inner / "by-run").exists()
    project.ok("umount", cwd=project.work)


@pytest.mark.parametrize("is_within", [False, True], ids=["new", "with a repository within"])
def test_a_folder_that_can_not_change_places_stays_and_so_does_what_is_in_it(project: Project, is_within: bool) -> None:
    """A folder of an overlay's lower layer: found out in the exchange itself, or when the repository is moved."""
    if is_within:
        project.ok("init", "project")
    overlay = project.folder.with_name("overlay")
    mount_something(project, overlay)
    for name in ("upper", "work", "merged"):
        (overlay / name).mkdir()
    options = f"lowerdir={project.folder},upperdir={overlay}/upper,workdir={overlay}/work,redirect_dir=off"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", overlay / "merged"], check=True)
    try:
        was = without_repository(overlay / "merged")
        answer = project.run("adopt", str(overlay / "merged" / "project"))
        assert answer.code == 4 and "file system" in answer.stderr, answer
        assert without_repository(overlay / "merged") == was
        assert (overlay / "merged" / "project" / ".fusecas" / "store").is_dir() == is_within
        assert not (overlay / "merged" / "project.fusecas").exists()
        assert not (overlay / "merged" / "project" / ".fusecas" / "adopted").exists()
    finally:
        subprocess.run(["umount", overlay / "merged"], check=True)


def without_repository(folder: Path) -> dict[bytes, object]:
    return {name: each[5] for name, each in hostile.look(folder).items() if b".fusecas" not in name}


def test_a_full_disk_keeps_what_is_mounted(project: Project) -> None:
    mount_something(project, project.folder / "small")
    subprocess.run(["mount", "-o", "remount,size=20m", project.folder / "small"], check=True)
    folder = project.folder / "small" / "project"
    folder.mkdir()
    (folder / "noise").write_bytes(os.urandom(4 << 20))
    project.ok("adopt", "small/project")
    try:
        with (folder.parent / "filler").open("wb") as filler:
            disk = os.statvfs(folder.parent)
            filler.write(bytes(disk.f_bavail * disk.f_frsize - (1 << 20)))
        answer = project.run("release", "small/project")
        assert answer.code == 6 and "space" in answer.stderr, answer
        assert is_mounted(folder) and (folder / "noise").stat().st_size == 4 << 20
        assert not (folder.parent / "project.released-new").exists()
    finally:
        project.ok("umount", "small/project")


def test_a_pointer_to_another_repository_is_not_mounted_over(project: Project) -> None:
    project.adopt()
    project.umount()
    (project.folder / "other").mkdir()
    project.ok("init", "other")
    answer = project.run("mount", str(project.work), "--repo", str(project.folder / "other" / ".fusecas"))
    assert answer.code == 4 and f"stands for the workspace of {project.repository}" in answer.stderr
    project.ok("mount", "project")
    assert (project.work / "README").exists()


def test_where_times_are_kept_less_exactly_release_says_so(project: Project) -> None:
    image, disk = project.folder.with_name("disk.img"), project.folder / "disk"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    disk.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-I", "128", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        project.work.rename(project.folder / "elsewhere")
        (disk / "project").mkdir()
        project.ok("adopt", "disk/project")
        (disk / "project" / "file").write_text("at a time with nanoseconds\n")
        answer = project.run("release", "disk/project")
        assert answer.code == 4 and "times are kept less exactly" in answer.stderr, answer
        assert is_mounted(disk / "project")
        project.ok("release", "disk/project", "--lossy")
        assert (disk / "project" / "file").read_text() == "at a time with nanoseconds\n"
    finally:
        if is_mounted(disk / "project"):
            project.ok("umount", "disk/project")
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("options", [(), ("--purge",)])
def test_the_repository_of_an_adopted_folder_is_not_put_away(project: Project, options: tuple[str, ...]) -> None:
    project.adopt()
    answer = project.run("reset", "--all", "--yes", *options, cwd=project.work)
    assert answer.code == 4 and f"fusecas release {project.work}" in answer.stderr
    assert is_mounted(project.work) and (project.work / "README").exists()
