"""Compiled programs kept in a folder, so that later processes need neither trace nor compile them."""

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
FULL = 256 * 2**20  # bytes of programs in a folder; beyond that, those unused for longest are deleted


class ProgramCache:
    """The programs of one model on the first CPU device, one for each set of input shapes.

    JAX's own compilation cache saves only compilation; more than half of the remaining start-up time is tracing and
    lowering, which this cache saves too. A program is identified by everything it was made from: the sources of this
    package, the model, the shapes, JAX and its settings (except those set in a `with`), and the processor. If any of
    these differs, or the file is damaged, the program is compiled again. As with JAX's cache, the files are executed
    unchecked: only the folder's owner should be able to write to it.

    Args:
        folder: created if missing; if it cannot be written to, its programs are still used and new ones are kept in
            memory.
        model: the `model=` of the functions; its string form must describe it completely.
    """

    def __init__(self, folder: Path, model: Hashable):
        self.folder, self.model = folder, model
        self._programs: dict[tuple, Callable] = {}
        self._locks: defaultdict[tuple, Lock] = defaultdict(Lock)

    def __call__(self, function: Callable, variables: dict, *args):
        """`function(variables, *args, model=model)`, for a function made by `jax.jit`.

        `variables` must have the same shapes in every call of one function.
        """
        key = _key(function, args)
        if key not in self._programs:
            with self._locks[key]:  # a second thread that needs the same waits; others go on
                if not self.has(function, variables, *args):
                    self._programs[key] = self._make(function, variables, args)
        return self._programs[key](variables, *args)

    def has(self, function: Callable, variables: dict, *args) -> bool:
        """Whether there is a program for these shapes, which means that it was once compiled for such arguments."""
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
            # A program that came from JAX's own cache is incomplete when serialised again; only running it shows that.
            jax.block_until_ready(_program_of(content)(variables, *args))
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path(function, variables, args), content)
            _make_room(self.folder)
        except Exception:  # whatever prevents storing it, it can still be run
            pass
        return program


def _key(function: Callable, args: tuple) -> tuple:
    """Tells the programs of one model apart, and is quicker to compute than their paths."""
    return function, *((np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in jax.tree.leaves(args))


def _load(path: Path) -> Callable | None:
    """The program in a file; None if there is none or it cannot be read."""
    try:
        program = _program_of(path.read_bytes())
    except Exception:  # whatever is wrong with a file, its program is compiled again
        return None
    with suppress(OSError):  # in a read-only folder
        os.utime(path)
    return program


def _program_of(content: bytes) -> Callable:
    return serialize_executable.deserialize_and_load(*pickle.loads(content), execution_devices=jax.local_devices()[:1])


def _make_room(folder: Path) -> None:
    files = [*folder.glob(f"*{SUFFIX}"), *folder.glob("*.partial")]  # the latter are left by killed processes
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
    """What else a program depends on that does not change within a process, as text."""
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        sources.update(path.read_bytes())
    versions = [module.__version__ for module in (jax, jaxlib, flax)]
    flags = os.environ.get("XLA_FLAGS", "")
    return str([sources.hexdigest(), versions, flags, cores(), platform.machine(), *_cpu()])


def _settings() -> str:
    """JAX's settings as text, without those of its own cache."""
    settings = {name: value for name, value in jax.config.values.items() if isinstance(value, str | int | float)}
    return str(sorted((name, value) for name, value in settings.items() if "cache" not in name))


def _cpu() -> list[str]:
    """The processor and, if the system reports them, its features: a program may use all of them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return [platform.processor()]
    return [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
