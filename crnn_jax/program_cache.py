"""Compiled programs, kept in a folder: who finds a program there neither traces nor compiles it."""

import hashlib
import os
import pickle
import platform
from collections import defaultdict
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

import flax
import jax
import jaxlib
import numpy as np
from jax.experimental import serialize_executable

from crnn_jax.cores import cores
from crnn_jax.data.whole import write_whole

SUFFIX = ".program"
FULL = 256 * 2**20  # bytes of programs in a folder, above which those that were not used for longest make room


class ProgramCache:
    """The programs of one model on the first device of a CPU, for every shape that it is given.

    JAX's own compilation cache spares compilation alone, and more than half of what is left of a start is tracing and
    lowering, which are spared here too. A program belongs to all that it was made of: the sources of this package, the
    model, the shapes, JAX and its settings (but for those of a `with`), the processor. With anything else it is made
    anew, and so is one whose file is damaged. Like those of JAX's cache the files are run as they are: the folder is
    for its owner alone to write in.

    Args:
        folder: made where it is not there; where it cannot be written, what is there is used all the same, and what is
            made is kept in memory.
        model: the `model=` of the functions, which its text tells all of.
    """

    def __init__(self, folder: Path, model: Hashable):
        self.folder, self.model = folder, model
        self._programs: dict[tuple, Callable] = {}
        self._locks: defaultdict[tuple, Lock] = defaultdict(Lock)

    def __call__(self, function: Callable, variables: dict, *args):
        """`function(variables, *args, model=model)`, of a function that `jax.jit` has made.

        `variables` are of the same shapes whenever the function is the same.
        """
        key = _key(function, args)
        if key not in self._programs:
            with self._locks[key]:  # two threads that need the same; others go on
                if not self.has(function, variables, *args):
                    self._programs[key] = self._make(function, variables, args)
        return self._programs[key](variables, *args)

    def has(self, function: Callable, variables: dict, *args) -> bool:
        """Whether there is a program for variables and arguments of these shapes, so that it was made of such once."""
        key = _key(function, args)
        if key not in self._programs and (program := _load(self._path(function, variables, args))):
            self._programs[key] = program
        return key in self._programs

    def _path(self, function, variables, args) -> Path:
        leaves, structure = jax.tree.flatten((variables, args))
        shapes = [structure, *map(_typed, leaves)]
        ingredients = [function.__module__, function.__qualname__, self.model, *shapes, _surroundings(), _settings()]
        digest = hashlib.sha256("\n".join(map(str, ingredients)).encode()).hexdigest()
        return self.folder / f"{function.__name__.strip('_')}-{digest[:32]}{SUFFIX}"

    def _make(self, function, variables, args) -> Callable:
        program = function.lower(variables, *args, model=self.model).compile()
        try:
            content = pickle.dumps(serialize_executable.serialize(program))
            # A program that JAX's own cache had is not whole when it is written again, and says so when it is run.
            jax.block_until_ready(_program_of(content)(variables, *args))
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path(function, variables, args), content)
            _make_room(self.folder)
        except Exception:  # whatever keeps it from being kept: it is there to be run
            pass
        return program


def _key(function: Callable, args: tuple) -> tuple:
    """What tells the programs of one model apart, sooner than their paths do."""
    return function, *((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in jax.tree.leaves(args))


def _load(path: Path) -> Callable | None:
    """The program in a file; None where there is none that can be read."""
    try:
        program = _program_of(path.read_bytes())
    except Exception:  # whatever is wrong with a file, its program is made anew
        return None
    with suppress(OSError):  # of a folder that is only read
        os.utime(path)
    return program


def _program_of(content: bytes) -> Callable:
    return serialize_executable.deserialize_and_load(*pickle.loads(content), execution_devices=jax.local_devices()[:1])


def _make_room(folder: Path) -> None:
    files = [*folder.glob(f"*{SUFFIX}"), *folder.glob("*.partial")]  # the latter of processes that were killed
    found = sorted(((path.stat(), path) for path in files), key=lambda pair: -pair[0].st_mtime)
    size = 0
    for stat, path in found:
        size += stat.st_size
        if size > FULL:
            path.unlink(missing_ok=True)


def _typed(leaf) -> str:
    kind = jax.typeof(leaf)
    return f"{kind.dtype}{list(kind.shape)}{'~' if kind.weak_type else ''}"


@cache
def _surroundings() -> str:
    """What else a program depends on and a process cannot change, as text."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    versions = [module.__version__ for module in (jax, jaxlib, flax)]
    flags = os.environ.get("XLA_FLAGS", "")
    return str([sources.hexdigest(), versions, flags, cores(), platform.machine(), *_cpu()])


def _settings() -> str:
    """JAX's, as text, without those of its own cache."""
    settings = {name: value for name, value in jax.config.values.items() if isinstance(value, str | int | float)}
    return str(sorted((name, value) for name, value in settings.items() if "cache" not in name))


def _cpu() -> list[str]:
    """The processor and what it can do, where the system tells: a program may use all of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return [platform.processor()]
    return [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
