"""All-or-nothing writing of files and folders, and a lock for one process at a time to write in a folder."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crnn_jax.data.sample import DatasetError


@contextmanager
def whole_folder(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A new folder to write in, which becomes `path` at the end; after an error nothing of it is left.

    Until then it is `.incomplete-NAME` beside it. With `replaces`, an existing folder is renamed at the end to
    `.replaced-NAME`, and removed last; it remains if the process is killed between the two renames. Without `replaces`,
    raises DatasetError if `path` exists and is not an empty folder. Raises OSError if it cannot be written.
    """
    path = path.resolve()
    if not replaces and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DatasetError(f"{path}: already exists; remove it or choose another")
    partial, before = (path.with_name(f".{state}-{path.name}") for state in ("incomplete", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        if not (replaces and path.exists()):
            partial.replace(path)
            return
        shutil.rmtree(before, ignore_errors=True)
        path.replace(before)
        try:
            partial.replace(path)
        except BaseException:
            before.replace(path)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Locks the folder, creating it if necessary, against other processes that also call this.

    The lock is on its file `.lock`, which stays. The system releases it when the process ends, however it does. Raises
    BlockingIOError if another process holds it. If the system or file system has no such locks, nothing is locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)  # NFS locks only files open for writing
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: another process is writing to it") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that gets its name only once complete; after an OSError nothing of it is left."""
    partial = path.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises OSError if no file can be written at `path`, to find out before hours of work."""
    path = path.resolve()  # follow links
    exists = path.exists()
    path.open("ab").close()
    if not exists:
        path.unlink()
