"""Writes the shards of a preparation in this process, in several, or on a cluster; yields each once written."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from crnn_jax.data.preparation import Shard, read_result, write_shard
from crnn_jax.data.sample import DatasetError


def write_here(shards: list[Shard]) -> Iterator[Shard]:
    """Writes shards in this process. Raises DatasetError."""
    for shard in shards:
        write_shard(shard)
        yield shard


def write_in_processes(shards: list[Shard], workers: int) -> Iterator[Shard]:
    """Writes shards in other processes, at most one each at a time, so that an interruption stops them all.

    They are spawned, since a process that runs JAX has threads, which do not survive a fork. Raises DatasetError.
    """
    waiting, running = iter(shards), {}
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            while True:
                for shard in islice(waiting, workers - len(running)):
                    running[pool.submit(write_shard, shard)] = shard
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    yield running.pop(future)
    except BrokenProcessPool:
        raise DatasetError(
            f"{shards[0].out}: a worker was killed, perhaps for lack of memory: rerun with fewer workers to continue"
        ) from None


def write_on_beam(shards: list[Shard], options: Sequence[str]) -> Iterator[Shard]:
    """Writes shards as one Beam pipeline, and checks every second which are finished. Raises DatasetError."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    def run() -> None:
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            # Without Reshuffle a runner would fuse the two steps and write all shards one after the other.
            pipeline | beam.Create([tuple(s) for s in shards]) | beam.Reshuffle() | beam.Map(_write_row)

    pending = list(shards)
    if not pending:
        return
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(run)
        while pending:
            finished = bool(wait([future], timeout=1).done)
            done = [shard for shard in pending if read_result(shard)]
            yield from done
            pending = [shard for shard in pending if shard not in done]
            if finished and pending:
                _raise_beam_error(future.exception(), pending[0])


def _write_row(row: tuple) -> None:
    write_shard(Shard(*row))  # sent as a plain tuple: Beam turns a named one into a schema with its own types


def _raise_beam_error(error: BaseException | None, shard: Shard) -> None:
    # A runner wraps a worker's error in its own, of many lines; the worker's own message begins with the shard.
    line = next((line for line in str(error).splitlines() if line.strip()), "unknown reason")
    _, at, rest = line.partition(f"{Path(shard.out)}{os.sep}")
    reason = f"{at}{rest}".partition(" [while running")[0] if at else f"{shard.path}: Beam did not write it: {line}"
    raise DatasetError(reason) from error
