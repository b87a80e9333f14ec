"""Times what a run spends its hours on; times on a busy machine are noisy, so compare within one call.

    python experiments/bench.py render [--styles mjsynth photo ...]      (on one core: taskset -c 0 python ...)
    python experiments/bench.py step [--config NAME] [--set a.b=VALUE ...]
    python experiments/bench.py data --data PATH [--words N]                (the peer: pip install tensorflow-cpu)
    python experiments/bench.py memory --data PATH [--words N] [--set run.read_processes=2]     (needs psutil)

render: words a second of rendering alone, a row a style. step: images a second of training steps that render their own
words, and of the same steps on words that are there already, which shows what rendering costs. data: words a second
that training reads from disk, shuffled, decoded, at the model's size and in batches, from N words of PATH in every kind
of dataset, with a thread a core and with a process a core; and by a tf.data pipeline that does the same work from the
same TFRecords. memory: that of this process and of those that read for it, at the start and after each tenth of N words
of PATH, which is gone through as often as that takes.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
from results import cpus
from train import load_config

from crnn_jax.config import Config, ConfigError, override
from crnn_jax.data.conversion import convert
from crnn_jax.data.dataset import Part, open_dataset
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.selection import select
from crnn_jax.data.stream import WordSource, stream
from crnn_jax.data.writers import WRITERS
from crnn_jax.model import build
from crnn_jax.synth.batch import load_source, synth_batch
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step

ROUNDS = 7  # measured in turn; the median counts
# To read ahead on as many cores as there are.
WAYS = {"threads": ["run.read_threads={}"], "processes": ["run.read_processes={}"]}
SECONDS = 0.5  # about, of one round of one row


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("render", "step", "data", "memory"))
    parser.add_argument("--data", metavar="PATH", help="a dataset to take the words from")
    parser.add_argument("--words", type=int, default=50_000, metavar="N", help="as many of it")
    parser.add_argument("--styles", nargs="+", default=["plain", "mjsynth", "photo"], metavar="NAME")
    parser.add_argument("--config", default="tiny", metavar="NAME", help="a file of experiments/configs/")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=VALUE", help="overrides")
    args = parser.parse_args(argv)
    if (args.what in ("data", "memory")) != bool(args.data):
        parser.error("--data goes with `data` and `memory`")
    try:
        config = override(load_config(args.config), args.set)
        if args.what == "memory":
            for read, sizes in memory(config, args.data, words=args.words):
                print(f"{read:>12,} words  " + " + ".join(f"{size / 1e6:,.0f}" for size in sizes) + " MB", flush=True)
            return 0
        if args.what == "data":
            rates = data_rates(config, args.data, words=args.words)
        elif args.what == "render":
            rates = render_rates({name: override(config, [f"data.style={name}"]) for name in args.styles})
        else:
            rates = step_rates(config)
    except (ConfigError, DatasetError, ImportError, OSError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 1
    print(f"{jax.devices()[0].device_kind}, {cpus()} CPU cores, batch {config.run.batch_size}")
    for name, rate in rates.items():
        print(f"{name:<24} {rate:>9,.0f} images/s")
    return 0


def render_rates(configs: dict[str, Config]) -> dict[str, float]:
    """Words a second of each config's rendering."""
    key, calls = jax.random.key(0), {}
    source = load_source(next(iter(configs.values())))
    for name, config in configs.items():
        draw = jax.jit(partial(synth_batch, batch_size=config.run.batch_size, config=config))
        calls[name] = partial(draw, key, source)
    return measure(calls, images=next(iter(configs.values())).run.batch_size)


def step_rates(config: Config) -> dict[str, float]:
    """Images a second of training: with the rendering of its words, without it, and the rendering alone."""
    model, tx = build(config.model), make_optimizer(config.optimizer, config.run.steps)
    key, source = jax.random.key(0), load_source(config)
    state = create_state(key, model, tx, config.model)
    draw = partial(synth_batch, batch_size=config.run.batch_size, config=config)
    step = partial(train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay)
    whole = jax.jit(lambda state, source, key: step(state, draw(key, source), key))
    batch = jax.jit(draw)(key, source)
    calls = {
        "step with rendering": partial(whole, state, source, key),
        "step on ready words": partial(jax.jit(step), state, batch, key),
        "rendering alone": partial(jax.jit(draw), key, source),
    }
    return measure(calls, images=config.run.batch_size)


def data_rates(config: Config, path: str, *, words: int) -> dict[str, float]:
    """Images a second of reading: a row a kind of dataset and a way to read it, and tf.data's where it is installed."""
    # As far ahead as tf.data here, four batches: a row that reads on while the next one is measured would slow it.
    config = override(config, ["run.steps_per_dispatch=2"])
    cores, size = cpus(), config.run.batch_size
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
                there = override(config, [change.format(cores) for change in changes])
                streams.append(stream([source], [1], there, rows=size))
                calls[f"{kind}, {cores} {way}"] = partial(next, streams[-1])
        if find_spec("tensorflow"):
            files = sorted(map(str, Path(folder, "tfrecord").iterdir()))
            calls[f"tf.data, {cores} threads"] = partial(next, tf_data(files, config, threads=cores))
        rates = {name: size * rate for name, rate in call_rates(calls).items()}
        for opened in streams:
            opened.close()
        return rates


def memory(config: Config, path: str, *, words: int) -> Iterator[tuple[int, list[int]]]:
    """The words read so far and the resident bytes of this process and of each that reads for it, eleven times.

    Raises ImportError where psutil, of the extra `bench`, is not installed.
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
    """Calls a second of what works ahead between the calls, in turn: the median over ROUNDS rounds of 2 SECONDS.

    The first half of a round uses up what was done ahead, and is not counted.
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
    """The peer: batches of the same shards as tf.data has them, with a shuffle of 10,000 words instead of all."""
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


def measure(calls: dict, *, images: int) -> dict[str, float]:
    """Images a second of each call, in turn: the median over ROUNDS rounds of about SECONDS."""
    repeats, rates = {}, {name: [] for name in calls}
    for name, call in calls.items():
        jax.block_until_ready(call())  # compiles
        begin = time.perf_counter()
        jax.block_until_ready(call())
        repeats[name] = max(1, round(SECONDS / (time.perf_counter() - begin)))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                result = call()
            jax.block_until_ready(result)
            rates[name].append(images * repeats[name] / (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in rates.items()}


if __name__ == "__main__":
    sys.exit(main())
