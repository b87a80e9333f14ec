"""What a script is about to write, checked before the hours that lead to it."""

from collections.abc import Iterable
from pathlib import Path

from crnn_jax.data.dataset import LISTS, files_of
from crnn_jax.data.whole import check_writable


def check_outputs(*outputs: Path | None, inputs: Iterable[str | Path]) -> None:
    """Raises OSError for a file that cannot be written, that is to be written twice, or that is, or lies in, an input.

    Outputs that are None are none. Inputs are files, folders, patterns of shards; of a list of images its folder is
    one.
    """
    paths = [path for path in outputs if path]
    if len({path.resolve() for path in paths}) < len(paths):
        raise OSError("two outputs are to be written to one file: name another")
    read = {place.resolve(): name for name in map(str, inputs) for place in _places(name)}
    for path in paths:
        for place in (path.resolve(), *path.resolve().parents):
            if place in read:
                raise OSError(f"{path} would be written into {read[place]}, which is to be read: name another place")
        check_writable(path)


def _places(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_file() and path.name in LISTS:
        return [path.parent]
    return [path, *files_of(path)]
