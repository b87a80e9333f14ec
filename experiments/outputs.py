"""Checks the files that a script is to write, before hours of work."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from crnn_jax.data.dataset import TEXTS, files_of
from crnn_jax.data.folder import FolderDataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import check_writable


def check_outputs(*outputs: Path | None, inputs: Iterable[str | Path] = ()) -> None:
    """Raises OSError for an output that cannot be written, that is given twice, or that is or lies in an input.

    Outputs that are None are ignored. Inputs are files, datasets and folders; nothing may be written in them.
    """
    paths = [path for path in outputs if path]
    if len({path.resolve() for path in paths}) < len(paths):
        raise OSError("two outputs are the same file: choose another for one of them")
    read = {place.resolve(): name for name in map(str, inputs) for place in _places(name)} if paths else {}
    for path in paths:
        for place in (path.resolve(), *path.resolve().parents):
            if place == path.resolve() and place in read:
                raise OSError(f"{path} is an input: choose another file")
            if place in read:
                raise OSError(f"{path} lies in {read[place]}, which is an input: choose another place")
        check_writable(path)


def _places(name: str) -> list[Path]:
    """All paths that are read for this input: of a list of images, these too."""
    path = Path(name).expanduser()
    places = [path, *files_of(path)]
    if path.is_file() and path.suffix in TEXTS:
        with suppress(DatasetError):  # a text file that is not such a list
            places += FolderDataset(path, strict=False).images
    return places
