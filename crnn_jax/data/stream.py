"""Words from disk in seeded order, read ahead: each batch is a function of the seed and its number.

Grain shuffles, mixes and reads in parallel. Everything is by index: a run that resumes at step k asks for batch k, and
no state of the order is saved. Hosts and devices take rows of the same global batch.
"""

import itertools
import logging
import multiprocessing
import os
import signal
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from crnn_jax.charset import Charset
from crnn_jax.config import Config
from crnn_jax.data.sample import Dataset, DatasetError
from crnn_jax.data.selection import Selection
from crnn_jax.data.target import class_ids, fit, unfit
from crnn_jax.images import ImageError, load_image
from crnn_jax.synth.batch import Batch

FIRST = 100  # words read before the share of damaged ones is judged
TOLD = 20  # damaged words logged one by one; after them, every TOLD-th

log = logging.getLogger("crnn_jax.data")


class WordSource:
    """The selected words of a dataset, decoded and at the model's size, by position.

    A word that proves damaged is counted, logged and replaced by the next one that is not. If the damaged share of the
    words asked for exceeds `data.max_damaged`, a DatasetError ends the run. It may be read from several threads; with
    several processes, each counts its own words.
    """

    def __init__(self, dataset: Dataset, selection: Selection, config: Config, *, name: str):
        self.name = name
        self._dataset, self._indices, self._config = dataset, selection.indices, config
        self._checksum = selection.checksum
        self._charset = Charset.of(config.model.charset)
        self._read = self._damaged = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def kept(self) -> str:
        """How many words were selected, and a checksum of which they are."""
        return f"{len(self)} ({self._checksum:08x})"

    def __getitem__(self, position: int) -> dict[str, np.ndarray]:
        for step in range(len(self)):
            index = int(self._indices[(position + step) % len(self)])
            try:
                image, label, name = self._dataset[index]
                place = self._dataset.place(name)
                pixels, ids = fit(load_image(image, name=place), self._config), class_ids(label, self._charset)
                if reason := unfit(ids, self._config):
                    raise DatasetError(f"{place}: {reason}: it has changed since the words were selected")
            except (DatasetError, ImageError) as error:
                if step == 0:  # its replacements are counted at their own positions
                    self._count(error)
                continue
            if step == 0:
                self._count()
            slots = np.zeros(self._config.data.max_length, np.int32)
            slots[: len(ids)] = ids
            return {"image": pixels, "label": slots, "label_length": np.int32(len(ids))}
        raise DatasetError(f"{self.name}: no word can be read")

    def _count(self, error: Exception | None = None) -> None:
        with self._lock:
            self._read += 1
            self._damaged += error is not None
            read, damaged, most = self._read, self._damaged, self._config.data.max_damaged
        if error is not None:
            if damaged <= TOLD or damaged % TOLD == 0:
                log.warning("skipped: %s", error)
            if read >= FIRST and damaged > most * read:
                raise DatasetError(
                    f"{self.name}: {damaged} of {read} words read are damaged, more than data.max_damaged = {most:g}; "
                    f"the last: {error}"
                )

    def __getstate__(self):
        return self.__dict__ | {"_lock": None}

    def __setstate__(self, state):
        self.__dict__ = state | {"_lock": threading.Lock()}


def stream(
    sources: Sequence[WordSource],
    weights: Sequence[int | float],
    config: Config,
    *,
    rows: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[Batch]:
    """This process's rows of every global batch, without end, as NumPy arrays; close the generator when done.

    Args:
        sources: mixed in a fixed pattern, each reshuffled in every epoch.
        weights: one per source, in any unit.
        config: its seed determines the order; `run.read_threads` and `run.read_processes` read ahead.
        rows: this process's; a global batch has `processes` times as many.
        start: the number of the first batch.
        process, processes: this process's number, and how many there are.

    Raises DatasetError while it is read (see WordSource).
    """
    grain = _grain()
    run = config.run
    # Grain shuffles, mixes and batches numbers, at 11 us each instead of 70 for whole words, which are read last.
    stops = list(itertools.accumulate(len(source) for source in sources))
    shuffled = [
        grain.MapDataset.range(stop - len(source), stop).seed(run.seed + i).shuffle().repeat()
        for i, (source, stop) in enumerate(zip(sources, stops, strict=True))
    ]
    mixed = grain.MapDataset.mix(shuffled, weights) if len(shuffled) > 1 else shuffled[0]
    # Processes take runs of `rows` words in turn: together these are the batches of a single process.
    numbers = mixed.batch(rows)[process::processes][start:]
    batches = numbers.map(partial(_read, sources=sources, stops=stops))
    ahead = max(2 * run.steps_per_dispatch, run.read_threads)  # batches per process
    options = grain.ReadOptions(num_threads=run.read_threads, prefetch_buffer_size=ahead)
    read = batches.to_iter_dataset(options)
    if run.read_processes:
        _flags_are_parsed()
        # Batches come through a pipe, 0.2 MB each: Grain's shared memory would leak when a reader stops early.
        piped = grain.experimental.DatasetOptions(min_shm_size=2**62)
        read = grain.experimental.WithOptionsIterDataset(read, piped)
        options = grain.multiprocessing.MultiprocessingOptions(num_workers=run.read_processes)
        read = read.mp_prefetch(options, worker_init_fn=_leave_signals)
    return _batches(iter(read))


def _read(numbers: np.ndarray, *, sources: Sequence[WordSource], stops: Sequence[int]) -> dict[str, np.ndarray]:
    """The batch of the words with these numbers, counted across all sources; source i's end before stops[i]."""
    words = []
    for number in numbers.tolist():
        source = bisect_right(stops, number)
        words.append(sources[source][number - stops[source] + len(sources[source])])
    return {name: np.stack([word[name] for word in words]) for name in words[0]}


def _leave_signals(worker: int, workers: int) -> None:
    """Makes a reader process ignore SIGINT and SIGTERM, and end when the run's own process has ended.

    Ctrl-C goes to all processes of a terminal, as does a scheduler's SIGTERM; the run saves, then ends its readers.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _batches(read) -> Iterator[Batch]:
    try:
        for batch in read:
            yield Batch(**batch)
    except DatasetError as error:
        raise DatasetError(str(error).splitlines()[0]) from None  # Grain adds lines about its traceback
    except RuntimeError as error:
        if not str(error).startswith("Worker process was terminated"):
            raise
        # A reader was killed, perhaps for lack of memory: what was learnt has to be saved.
        raise DatasetError(f"data.sources: reading stopped: {str(error).splitlines()[0]}") from error
    finally:
        read.close()  # its threads and processes


def _grain():
    try:
        import grain
    except ImportError as error:
        raise DatasetError(f"data.sources needs the package grain: pip install grain ({error})") from None
    return grain


def _flags_are_parsed() -> None:
    # Grain's worker processes read absl's flags, which is an error in a program that does not use them.
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
