"""A small disk of a test's own, whose power can be cut: what was not synced is gone, and the rest is as it was then.

A real ext4 in an image file, mounted through a loop device: what it has not written to the image is what a cut loses.
It is mounted so that it writes as little and as late as it can: its journal waits for a sync, and a file that replaces
another is not written out for that alone. So after a cut a name may well be there without its content.
"""

import contextlib
import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kit import eventually

_LATE = "loop,commit=300,noauto_da_alloc"


class Disk:
    """The file system at `mount`, of which `image` is all that is durable."""

    def __init__(self, directory: Path) -> None:
        self.image, self.mount = directory / "image", directory / "disk"
        self.mount.mkdir()

    def sync(self) -> None:
        """Everything written so far survives."""
        subprocess.run(["sync", "--file-system", self.mount], check=True)

    def cut(self) -> None:
        """Now; whoever is still at work is dead, and the machine is up again when this returns."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and str(self.mount) in " ".join(process.environ().values()):
                    process.kill()
        platter = self.image.with_name("platter")
        shutil.copyfile(self.image, platter)
        self.unplug()
        os.replace(platter, self.image)
        self.plug()
        for boot in self.mount.glob("*/.git/wt-state/store.git/boot"):
            boot.write_text("another start of the machine")

    def plug(self) -> bool:
        """Mounts it; False where that is not allowed."""
        words: list[str | Path] = ["mount", "-o", _LATE, self.image, self.mount]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def unplug(self) -> None:
        """Unmounts it, once nobody uses it any more."""

        def is_gone() -> bool:
            gc.collect()  # repositories of this process keep their packs open
            return subprocess.run(["umount", self.mount], capture_output=True, check=False).returncode == 0

        eventually(is_gone, what="nobody uses the disk")


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Disk]:
    """A disk of 64 MB in a directory, at `disk`."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("a disk of our own takes root and mkfs.ext4")
    disk = Disk(directory)
    with disk.image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk.image], check=True)
    if not disk.plug():
        pytest.skip("this container may not mount")
    try:
        yield disk
    finally:
        disk.unplug()
