"""How fast words are read from disk for training, and how much memory it takes: `data` and `memory` of bench.py."""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from crnn_jax.config import Config, override
from crnn_jax.cores import cores
from crnn_jax.data.conversion import convert
from crnn_jax.data.dataset import Part, open_dataset
from crnn_jax.data.selection import select
from crnn_jax.data.stream import WordSource, stream
from crnn_jax.data.writers import WRITERS

ROUNDS = 7  # measured in turn; the median counts
SECONDS = 0.5  # approximate length of half a round of one row
# Ways to read ahead on all cores.
WAYS = {"threads": ["run.read_threads={}"], "processes": ["run.read_processes={}"]}


def data_rates(config: Config, path: str, *, words: int) -> dict[str, float]:
    """Images per second of reading, for each kind of dataset and way to read it, and of tf.data if it is installed."""
    # Four batches ahead, as tf.data here: a row that reads on while the next one is measured would slow it down.
    config = override(config, ["run.steps_per_dispatch=2"])
    workers, size = cores(), config.run.batch_size
    whole = open_dataset(path, strict=False)
    part = Part(whole, 0, min(words, len(whole)))
    with tempfile.TemporaryDirectory() as folder:
        calls, streams = {}, []
        for kind in WRITERS:
            place = Path(folder, kind)
            convert([part], place, format=kind, shards=min(8, len(part)))
            dataset, selection = select(str(place), config)
            source = WordSource(dataset, selection, config, name=kind)
            for way, changes in WAYS.items():
                there = override(config, [change.format(workers) for change in changes])
                streams.append(stream([source], [1], there, rows=size))
                calls[f"{kind}, {workers} {way}"] = partial(next, streams[-1])
        if find_spec("tensorflow"):
            files = sorted(map(str, Path(folder, "tfrecord").iterdir()))
            calls[f"tf.data, {workers} threads"] = partial(next, tf_data(files, config, threads=workers))
        rates = {name: size * rate for name, rate in call_rates(calls).items()}
        for opened in streams:
            opened.close()
        return rates


def memory(config: Config, path: str, *, words: int) -> Iterator[tuple[int, list[int]]]:
    """The words read so far and the resident bytes of this process and of each of its readers, eleven times.

    Raises ImportError if psutil, of the extra `bench`, is not installed.
    """
    import psutil

    rows = config.run.batch_size
    dataset, selection = select(path, config)
    batches = -(-words // rows)
    read = 0
    with closing(stream([WordSource(dataset, selection, config, name=path)], [1], config, rows=rows)) as opened:
        for tenth in range(11):
            while read < batches * tenth // 10:
                next(opened)
                read += 1
            readers = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            yield read * rows, [psutil.Process(pid).memory_info().rss for pid in readers]


def call_rates(calls: dict) -> dict[str, float]:
    """Calls per second of functions that work ahead between calls, in turn: the median over ROUNDS rounds of 2 SECONDS.

    The first half of a round uses up what was done ahead and is not counted.
    """
    rates = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for _ in range(2):
                begin, count = time.perf_counter(), 0
                while time.perf_counter() < begin + SECONDS or not count:
                    call()
                    count += 1
                rate = count / (time.perf_counter() - begin)
            rates[name].append(rate)
    return {name: statistics.median(values) for name, values in rates.items()}


def tf_data(files: list[str], config: Config, *, threads: int):
    """The peer: batches of the same shards by tf.data, shuffled within 10,000 words at a time instead of all."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    size = config.model.height, config.model.width
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "text/string": tf.io.FixedLenFeature([], tf.string),
    }

    def decode(record):
        example = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(example["image/encoded"], channels=1)
        image = tf.image.resize(image, size, method="bicubic", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), example["text/string"]

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    words = tf.data.TFRecordDataset(files).shuffle(10_000).repeat().map(decode, num_parallel_calls=threads)
    return words.batch(config.run.batch_size).prefetch(4).with_options(options).as_numpy_iterator()
