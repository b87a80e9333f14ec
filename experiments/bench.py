"""Times the work that takes up most of a run, next to other libraries that do the same.

    python experiments/bench.py train [--config NAME] [--set a.b=VALUE ...] [--batch N]       (peers: torch)
    python experiments/bench.py read [--config NAME] [--set a.b=VALUE ...] [--batch N]
    python experiments/bench.py read --model NAME|DIR [--data PATH] [--batch N]     (peers: Tesseract, PP-OCR)
    python experiments/bench.py ctc | lstm | sampler [--config NAME] [--set a.b=VALUE ...] [--batch N]
        all of these: [--threads N] [--rounds N]                            (peers: pip install -e '.[peers]')
    python experiments/bench.py render [--styles mjsynth photo ...]      (on one core: taskset -c 0 python ...)
    python experiments/bench.py step [--config NAME] [--set a.b=VALUE ...]
    python experiments/bench.py data --data PATH [--words N]                (the peer: pip install tensorflow-cpu)
    python experiments/bench.py start [--model NAME|DIR] [--rounds N]
    python experiments/bench.py memory --data PATH [--words N] [--set run.read_processes=2]     (needs psutil)
        any of all: [--json FILE]

train: whole training steps on ready words, of `crnn` in float32 by default; torch's network is that of cnn=vgg
without an STN, and other configs have no peer. read: images of the network's size, with random weights, in a batch and
one at a time; with --model, word images of any size, of a dataset or rendered, already decoded, on one CPU thread by
default, and how many are read right. ctc, lstm, sampler: forward and backward pass at the shapes of the config.

These are contests: each row runs in a process of its own, the processes take turns, and the median over the rounds
counts. A row shows the minimum operations and bytes that the work needs (experiments/work.py), and what share its rate
is of those of a large matrix product and a large copy in the same rounds; the time of the first call, which includes
compilation; and the process's peak memory.

render: words per second of rendering alone, one row per style. step: images per second of training steps that render
their own words, and of the same steps on ready words, which shows what rendering costs. data: words per second that
training reads from disk, shuffled, decoded, at the model's size and in batches, from N words of PATH in every kind of
dataset, with one thread per core and with one process per core; and by a tf.data pipeline that does the same work on
the same TFRecords. start: seconds that read.py takes to read a single word, from start to exit, the first time and
later. memory: that of this process and of its reader processes, at the start and after each tenth of N words of PATH,
which is read more than once if it has fewer.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import contest
import jax
import lineup
import scoreboard
from command import add_overrides, run, tells
from outputs import check_outputs
from startup import start_seconds
from supply import data_rates, memory
from train import load_config

import crnn_jax
from crnn_jax.config import Config, ConfigError, override
from crnn_jax.cores import cores
from crnn_jax.data.sample import DatasetError
from crnn_jax.images import ImageError
from crnn_jax.model import build
from crnn_jax.reader import DEFAULT_MODEL
from crnn_jax.synth.batch import load_source, synth_batch
from crnn_jax.synth.style import STYLES
from crnn_jax.training.checkpoint import CheckpointError
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.parallel import leave_out_fusion_emitters
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step

BATCH = 64
WORDS = 50_000  # of a dataset
ROUNDS = 7  # measured in turn; the median counts
SECONDS = 1.5  # approximate length of one round of one row
CONTESTS = {
    "train": lineup.train,
    "read": lineup.read,
    "ctc": lineup.ctc,
    "lstm": lineup.lstm,
    "sampler": lineup.sampler,
}


@tells(CheckpointError, ConfigError, contest.ContestError, DatasetError, ImageError, ImportError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*CONTESTS, "render", "step", "data", "start", "memory"))
    parser.add_argument("--data", metavar="PATH", help="dataset to take the words from")
    parser.add_argument(
        "--words", type=int, metavar="N", help=f"data, memory: number of its words (default: {WORDS:,})"
    )
    parser.add_argument("--styles", nargs="+", metavar="NAME", help=f"render: styles (default: {', '.join(STYLES)})")
    parser.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="name in experiments/configs/, or a path (default: crnn in contests, else tiny)",
    )
    add_overrides(parser)
    parser.add_argument("--model", metavar="NAME|DIR", help="read, start: bundled model, model folder or workdir")
    parser.add_argument("--batch", type=int, metavar="N", help=f"contests: words at a time (default: {BATCH})")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="contests: CPUs per contestant (default: all, or 1 with --model)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"contests, start: rounds (default: {ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements to FILE")
    args = parser.parse_args(argv)
    if args.model and args.what not in ("read", "start"):
        parser.error("--model works only with read and start")
    if args.words is not None and args.words < 1:
        parser.error("--words must be at least 1")
    if args.words is not None and args.what not in ("data", "memory"):
        parser.error("--words works only with data and memory")
    if args.styles and args.what != "render":
        parser.error("--styles works only with render")
    if (args.model or args.what == "start") and (args.config or args.set):
        parser.error("--config and --set do not work with --model or start, which use an existing model")
    takes_data = args.what in ("data", "memory")
    if bool(args.data) != takes_data and not (args.data and args.model and args.what == "read"):
        parser.error("--data is required by data and memory, optional for read --model, and not accepted otherwise")
    for name in ("batch", "threads", "rounds"):
        takers = (*CONTESTS, "start") if name == "rounds" else (*CONTESTS,)
        if getattr(args, name) is not None and args.what not in takers:
            parser.error(f"--{name} works only with {', '.join(takers)}; render and step take --set run.batch_size=N")
    check_outputs(args.json, inputs=filter(None, [args.data]))
    if args.what in CONTESTS:
        report = hold_contest(args)
        print(scoreboard.format_report(report))
    else:
        report = time_starts(args) if args.what == "start" else measure(args)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def measure(args: argparse.Namespace) -> dict:
    """Prints the measurements that are not a contest, and returns them for JSON. Raises what `main` reports."""
    if args.what == "step":
        leave_out_fusion_emitters()  # as train.py does; before anything else touches JAX
    base = load_config(args.config or "tiny")
    config = override(base, args.set)
    report = {
        "what": args.what,
        "config": config.name,
        "settings": args.set,
        "device": jax.devices()[0].device_kind,
        "machine": scoreboard.machine(),
        "load": os.getloadavg()[0],
        "batch": config.run.batch_size,
    }
    if args.what == "memory":
        report["bytes_after_words"] = {}
        for read, sizes in memory(config, args.data, words=args.words or WORDS):
            print(f"{read:>12,} words  " + " + ".join(f"{size / 1e6:,.0f}" for size in sizes) + " MB", flush=True)
            report["bytes_after_words"][read] = sizes
        return report
    if args.what == "data":
        rates = data_rates(config, args.data, words=args.words or WORDS)
    elif args.what == "render":
        styles = {name: override(base, [*args.set, f"data.style={name}"]) for name in args.styles or STYLES}
        rates = render_rates(styles)
    else:
        rates = step_rates(config)
    print(f"{report['device']}, {cores()} CPU cores, batch {config.run.batch_size}")
    for name, rate in rates.items():
        print(f"{name:<24} {rate:>9,.0f} images/s")
    return report | {"images_per_second": rates}


def time_starts(args: argparse.Namespace) -> dict:
    """Prints how long read.py takes, and returns it for JSON. Raises what `main` reports."""
    rounds, model = ROUNDS if args.rounds is None else args.rounds, args.model or DEFAULT_MODEL
    if rounds < 1:
        raise contest.ContestError("--rounds must be at least 1")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves a GPU's memory to what is started
    load, seconds = os.getloadavg()[0], start_seconds(model, rounds=rounds)
    for name, times in seconds.items():
        print(f"{name:<24} {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    told = {"what": args.what, "device": jax.devices()[0].device_kind, "machine": scoreboard.machine(), "load": load}
    return told | {"model": model, "seconds": seconds}


def hold_contest(args: argparse.Namespace) -> dict:
    """All that a contest measures, for JSON. Raises ConfigError, ContestError, DatasetError, CheckpointError."""
    default = 1 if args.model else cores()
    threads = default if args.threads is None else args.threads
    batch, rounds = BATCH if args.batch is None else args.batch, ROUNDS if args.rounds is None else args.rounds
    if not 1 <= threads <= cores():
        raise contest.ContestError(f"--threads {threads}: expected 1 to {cores()}, the number of CPUs")
    if min(batch, rounds) < 1:
        raise contest.ContestError("--batch and --rounds must be at least 1")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves a GPU's memory to the contestants
    if jax.default_backend() not in lineup.SIDE:
        raise contest.ContestError(
            f"a {jax.default_backend().upper()} serves one process at a time, so no contest can run on it"
        )
    samples, dtype, load, without_peer = None, "float32", os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as name:
        if args.model:
            config = crnn_jax.load(args.model).config
            dtype = config.model.dtype
            samples = lineup.labelled_words(config, args.data or "rendered", count=batch)
            contestants = lineup.words(args.model, config.model, samples, threads=threads, folder=Path(name))
        else:
            config = override(load_config(args.config or "crnn"), ["model.dtype=float32", *args.set])
            build(config.model)  # raises for what its stack does not support
            dtype = config.model.dtype
            contestants = CONTESTS[args.what](config, batch=batch, folder=Path(name))
            if args.what in ("train", "read") and not lineup.has_peer(config):
                without_peer = {"torch's network": "it covers only cnn=vgg with AdamW and no STN"}
        contestants += lineup.ceilings(dtype)
        results, left_out = contest.hold(contestants, threads=threads, rounds=rounds, seconds=SECONDS)
    return {
        "what": args.what,
        "config": None if args.model else config.name,
        "settings": args.set,
        "model": args.model,
        "device": jax.devices()[0].device_kind,
        "machine": scoreboard.machine(),
        "load": load,
        "threads": threads,
        "batch": len(samples) if samples else batch,
        "dtype": dtype,
        "ceilings": scoreboard.measured_ceilings(results),
        "contestants": scoreboard.rows(results, samples=samples),
        "left_out": without_peer | left_out,
    }


def render_rates(configs: dict[str, Config]) -> dict[str, float]:
    """Words per second that each config renders."""
    key, calls = jax.random.key(0), {}
    source = load_source(next(iter(configs.values())))
    for name, config in configs.items():
        draw = jax.jit(partial(synth_batch, batch_size=config.run.batch_size, config=config))
        calls[name] = partial(draw, key, source)
    return call_rates(calls, images=next(iter(configs.values())).run.batch_size)


def step_rates(config: Config) -> dict[str, float]:
    """Images per second of training steps with rendering, of those without it, and of rendering alone."""
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
    return call_rates(calls, images=config.run.batch_size)


def call_rates(calls: dict, *, images: int) -> dict[str, float]:
    """Images per second of each call, measured in turn: the median over ROUNDS rounds of about SECONDS."""
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
    run(main)
