"""A contest: programs that do the same work take turns, each in a process of its own.

This way no contestant's threads, memory or import order affects another's, and other load on the machine affects all
of them. A contestant is a script in this folder that passes its tasks to `serve`; the two exchange lines of JSON.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

INSTALL = "pip install -e '.[peers]'"


class ContestError(RuntimeError):
    """A contestant cannot do its task: the message is one line that names it."""


class Contestant(NamedTuple):
    """One program and what it is to do."""

    name: str
    script: str  # in this folder, or a path
    task: str  # one of those that the script serves
    options: dict  # keyword arguments of the task, in JSON's types
    words: int = 0  # that one call of the task trains on, reads, ...
    flops: float | None = None  # that one call needs; None: not known
    bytes: float | None = None
    needs: str = ""  # the module without which a peer is left out; "": the contest cannot do without it


class Result(NamedTuple):
    """What was measured of a contestant."""

    contestant: Contestant
    seconds: list[float]  # per call, averaged over each round
    first_call: float  # seconds, compilation included
    memory: int  # peak bytes of the host
    device_memory: int | None  # peak bytes of an accelerator
    answer: float | list | None  # what the last call returned


def hold(
    contestants: list[Contestant], *, threads: int, rounds: int, seconds: float
) -> tuple[list[Result], dict[str, str]]:
    """The results of `rounds` rounds, of about `seconds` per contestant each; and why others are left out, by name.

    First each in turn compiles and makes one more call, then the rounds begin. The first call of each in a round is not
    counted, since it finds the caches as the others have left them. All may use the same `threads` CPUs. Raises
    ContestError if a contestant with empty `needs` cannot do its task, or if any stops midway.
    """
    players, left_out = [], {}
    with ExitStack() as stack:
        for contestant in contestants:
            if contestant.needs and not find_spec(contestant.needs):
                left_out[contestant.name] = f"{contestant.needs} is not installed: {INSTALL}"
                continue
            player = stack.enter_context(_Player(contestant, threads))
            try:
                player.warm_up()
                players.append(player)
            except ContestError as error:
                if not contestant.needs:
                    raise
                left_out[contestant.name] = str(error).removeprefix(f"{contestant.name}: ")
        times = [[player.play(seconds) for player in players] for _ in range(rounds)]
        results = [player.finish(list(own)) for player, own in zip(players, zip(*times, strict=True), strict=True)]
    return results, left_out


class _Player:
    """The process of a contestant, killed on leaving the context."""

    def __init__(self, contestant: Contestant, threads: int):
        self.contestant = contestant
        self._log = tempfile.TemporaryFile("w+")
        command = [sys.executable, Path(__file__).parent / contestant.script]
        environment = {
            # Threads of torch and Tesseract, which both use OpenMP.
            "OMP_NUM_THREADS": str(threads),
            "OMP_THREAD_LIMIT": str(threads),
            # Otherwise the first would take most of a GPU's memory from the others.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            # Programs compiled by an earlier run would make the first call look fast.
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        }
        with _on_cpus(threads):
            self._process = subprocess.Popen(
                [*command, contestant.task, json.dumps(contestant.options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=os.environ | environment,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()  # waits, and closes the pipes
        self._log.close()

    def warm_up(self) -> None:
        """Waits for the first call and the one after it. Raises ContestError."""
        self._first_call = self._reply()["first_call"]

    def play(self, seconds: float) -> float:
        """Plays a round; returns the seconds per call."""
        with suppress(BrokenPipeError):  # the process has ended: `_reply` reports why
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        return self._reply()["seconds"]

    def finish(self, seconds: list[float]) -> Result:
        """The result, with the seconds of its rounds."""
        self._process.stdin.close()
        self._process.stdin = None  # `communicate` would flush it
        return Result(self.contestant, seconds, self._first_call, **self._reply())

    def _reply(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)  # its pipe closes before it logs why
            self._log.seek(0)
            last = [line.strip() for line in self._log if line.strip()][-1:]
            raise ContestError(": ".join([self.contestant.name, "its process ended", *last]))
        reply = json.loads(line)
        if "error" in reply:
            raise ContestError(f"{self.contestant.name}: {reply['error']}")
        return reply


def serve(*tasks: Callable, device_memory: Callable[[], int | None] = lambda: None) -> None:
    """The main function of a contestant's script: does the command line's task as often as standard input asks.

    Args:
        tasks: functions, selected by name. A task takes the options as keywords, gets ready, and returns what is timed:
            a function without arguments that waits for its work to be done and returns a number, a list or None.
        device_memory: returns the peak bytes of an accelerator so far, None if there is none.
    """
    # Libraries print, some of them from C: their lines go to the log, to keep them out of the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(**values):
        print(json.dumps(values), file=replies, flush=True)

    try:
        task = next(task for task in tasks if task.__name__ == sys.argv[1])
        call = task(**json.loads(sys.argv[2]))
        begin = time.perf_counter()
        call()
        first_call = time.perf_counter() - begin
        answer = call()
        reply(first_call=first_call)
        for line in sys.stdin:
            call()  # the others have used the caches and the memory since
            begin, count = time.perf_counter(), 0
            while not count or time.perf_counter() < begin + float(line):
                answer = call()
                count += 1
            reply(seconds=(time.perf_counter() - begin) / count)
        reply(memory=_peak_memory(), device_memory=device_memory(), answer=answer)
    except ContestError as error:
        reply(error=str(error))
    except Exception as error:  # from any library: the contest goes on without this one
        reply(error=" ".join(f"{type(error).__name__}: {error}".split())[:300])


def _peak_memory() -> int:
    """Peak resident bytes of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # there getrusage also counts the memory of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _on_cpus(count: int) -> Iterator[None]:
    """Limits processes started within to `count` CPUs, if the system supports that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])  # for this thread and its child processes
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
