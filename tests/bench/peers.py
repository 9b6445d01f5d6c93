"""The file systems that bench `mount` compares: ours, the floor (noop_mount.py), and ext4 with a journal."""

import os
import select
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from fusecas.client import Client
from tests.bench.measure import program, run

IMAGE = 8 << 30


class Mount(ABC):
    """Mounted at `work` while it is entered."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.work = self.folder / "work"

    def __enter__(self) -> Self:
        self.work.mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...


class Ext4(Mount):
    name = "ext4"

    def start(self) -> None:
        image = self.folder / "image"
        with image.open("wb") as file:
            file.truncate(IMAGE)
        # Its tables are made at once: not in the background, while somebody else is measured.
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-O", "has_journal", image)
        run("mount", "-o", "loop,noatime", image, self.work)

    def stop(self) -> None:
        run("umount", self.work)


class Floor(Mount):
    name = "floor"

    def start(self) -> None:
        words = [sys.executable, "-m", "tests.bench.noop_mount", os.fspath(self.work)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            raise RuntimeError("the floor could not be mounted")

    def stop(self) -> None:
        run("umount", self.work)
        self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def pid(self) -> int:
        return self.process.pid


class Ours(Mount):
    """`start` mounts a repository that is there already, too."""

    name = "fusecas"

    @property
    def repository(self) -> Path:
        return self.folder / ".fusecas"

    def start(self) -> None:
        if not self.repository.exists():
            run(program(), "init", self.folder)
        run(program(), "mount", self.work, "--repo", self.repository)
        with Client(self.repository) as client:
            self.pid = int(client.call("hello")["pid"])

    def stop(self) -> None:
        daemon = os.pidfd_open(self.pid)
        try:
            run(program(), "umount", "--repo", self.repository)
            select.select([daemon], [], [], 60)
        finally:
            os.close(daemon)

    def commit(self) -> None:
        run(program(), "commit", "--repo", self.repository)
