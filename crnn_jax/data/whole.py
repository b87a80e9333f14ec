"""Files and folders that are whole, or as they were before; and a folder that one process at a time writes in."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crnn_jax.data.sample import DatasetError


@contextmanager
def whole_folder(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A new folder to write in that becomes `path` at the end; after an error nothing of it is left.

    Until then it is `.incomplete-NAME` beside it. With `replaces` the folder that is there already makes room then:
    it is renamed to `.replaced-NAME`, and removed last; of a process that was killed between two renamings it is there
    still. Raises DatasetError where one is that is not empty, without it, and OSError where it cannot be written.
    """
    path = path.resolve()
    if not replaces and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DatasetError(f"{path}: exists already; name another or remove it")
    partial, before = (path.with_name(f".{state}-{path.name}") for state in ("incomplete", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
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
    """Within it no other process that asks for it too can have the folder, which is made where it is not there.

    It is its file `.lock` that is held, and that stays. The system lets go of it when a process ends, however it does.
    Raises BlockingIOError where another has it. Where the system or its file system has no such locks, nothing is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)  # NFS locks what is open for writing
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{folder}: another process is writing in it") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that has its name once it is whole; after an OSError nothing of it is left."""
    partial = path.with_name(f"{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises OSError where no file can be written at `path`: to be told before the hours that lead to it."""
    path = path.resolve()  # where a link leads
    exists = path.exists()
    path.open("ab").close()
    if not exists:
        path.unlink()
