"""A contest: programs that do the same work take turns, each in a process of its own.

So no contestant's threads, memory or import order gets in another's way, and a machine that is busy for a while is
busy for all of them. A contestant is a script beside this one that hands its tasks to `serve`; the two talk in lines of
JSON.
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
    """A contestant that cannot do its task: its message is one line that names it."""


class Contestant(NamedTuple):
    """One program and what it is to do."""

    name: str
    script: str  # beside this file, or a path
    task: str  # of those that the script serves
    options: dict  # keyword arguments of the task, in JSON's types
    words: int = 0  # that one call of the task takes, reads, ...
    flops: float | None = None  # that one call needs; None: not known
    bytes: float | None = None
    needs: str = ""  # the module without which a peer is left out; without "" there is no contest


class Result(NamedTuple):
    """What was measured of a contestant."""

    contestant: Contestant
    seconds: list[float]  # a call, on average over each round
    first_call: float  # seconds, compilation included
    memory: int  # bytes of the host, at the most
    device_memory: int | None  # bytes of an accelerator, at the most
    answer: float | list | None  # what the last call returned


def hold(
    contestants: list[Contestant], *, threads: int, rounds: int, seconds: float
) -> tuple[list[Result], dict[str, str]]:
    """The results of `rounds` rounds, each of about `seconds` a contestant; and why others are left out, by name.

    All compile one after the other and make one call more, then the rounds begin. In a round the first call of each,
    which finds the caches as the others have left them, is not counted. Each may use `threads` CPUs, the same for all.
    Raises ContestError where a contestant that needs nothing cannot do its task, or where any stops midway.
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
    """The process of a contestant, stopped on leaving the context."""

    def __init__(self, contestant: Contestant, threads: int):
        self.contestant = contestant
        self._log = tempfile.TemporaryFile("w+")
        command = [sys.executable, Path(__file__).parent / contestant.script]
        environment = {
            # Threads of torch and Tesseract, which both take OpenMP's.
            "OMP_NUM_THREADS": str(threads),
            "OMP_THREAD_LIMIT": str(threads),
            # Else the first would take most of a GPU's memory from the others.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            # What an earlier run has compiled would make the first call look quick.
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
        self._process.communicate()  # which waits, and closes the pipes
        self._log.close()

    def warm_up(self) -> None:
        """Waits for the first call and the one behind it. Raises ContestError."""
        self._first_call = self._reply()["first_call"]

    def play(self, seconds: float) -> float:
        """A round: seconds a call."""
        with suppress(BrokenPipeError):  # of a process that has ended: its last words tell why
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
                self._process.wait(10)  # its pipe is closed before it says why
            self._log.seek(0)
            last = [line.strip() for line in self._log if line.strip()][-1:]
            raise ContestError(": ".join([self.contestant.name, "its process ended", *last]))
        reply = json.loads(line)
        if "error" in reply:
            raise ContestError(f"{self.contestant.name}: {reply['error']}")
        return reply


def serve(*tasks: Callable, device_memory: Callable[[], int | None] = lambda: None) -> None:
    """The main of a contestant's script: does the task of the command line as often as the standard input asks.

    Args:
        tasks: functions, which are asked for by their names. A task takes the options as keywords, gets ready, and
            returns what is timed: a function of nothing that waits for its work to be done and returns a number, a
            list or None.
        device_memory: bytes of an accelerator at the most so far, None where there is none.
    """
    # Libraries print, some of them from C: their lines go to the log, lest they get between the replies.
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
            call()  # the others have had the caches and the memory since
            begin, count = time.perf_counter(), 0
            while not count or time.perf_counter() < begin + float(line):
                answer = call()
                count += 1
            reply(seconds=(time.perf_counter() - begin) / count)
        reply(memory=_peak_memory(), device_memory=device_memory(), answer=answer)
    except ContestError as error:
        reply(error=str(error))
    except Exception as error:  # of any library: the contest goes on without this one
        reply(error=" ".join(f"{type(error).__name__}: {error}".split())[:300])


def _peak_memory() -> int:
    """Resident bytes of this process at the most."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts there what the process that started this one had as well
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _on_cpus(count: int) -> Iterator[None]:
    """Processes started within may use `count` CPUs, where the system can see to that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])  # of this thread, and inherited
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
