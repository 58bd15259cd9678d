"""Small file systems that can be filled and turned read-only, where there is the right to mount."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments.cli.main import UserError
from experiments.run import folder as run_folder


@contextlib.contextmanager
def small_disk(where: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    run_folder.make_folder("out", where)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(where)], capture_output=True)
    if mounted.returncode:
        raise UserError(f"full_disks needs the right to mount ({mounted.stderr.decode().strip()}); give 0")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def require_mountable() -> None:
    """Raises UserError where a small file system cannot be mounted."""
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)):
        pass


def fill(disk: Path) -> None:
    """Writes until nothing more fits."""
    with contextlib.suppress(OSError), (disk / "filler").open("ab", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass


def remount(disk: Path, mode: str) -> None:
    """Turns the file system read-only (ro) or back (rw)."""
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)
