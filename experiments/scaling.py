"""How training scales over devices: measured on this machine's CPUs, and on paper over many chips.

    python experiments/scaling.py run [--config NAME] [--set a.b=VALUE ...] [--devices 1 2 4 8] [--steps N]
    python experiments/scaling.py paper [--config NAME] [--set a.b=VALUE ...] [--rate N] [--batch N]

run: takes the same steps on the same rendered words from the same weights, on 1, 2, 4 and 8 CPU devices of one process,
and of two processes. The devices share this machine's cores, so this does not show a speed-up, but what it costs to
split a batch, and that the loss is the same for any number of devices.
paper: the share of the time that N chips spend computing, if nothing hides the all-reduce of a step (experiments/
allreduce.py). It follows from the bytes of the all-reduce, counted in the program, the links' nominal rates, and the
images per second of one chip alone (--rate); for a batch that grows with the chips, and for one that they share.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial

import jax
from allreduce import LINKS, Traffic, share_computing, traffic
from command import add_overrides, run, tells
from train import load_config

from crnn_jax.config import Config, ConfigError, from_json, override, to_json
from crnn_jax.model import build
from crnn_jax.synth.batch import Batch
from crnn_jax.training import parallel
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step
from crnn_jax.training.words import load_words, train_batch

CHIPS = (2, 4, 8, 16, 32, 64, 128, 256)
WORKER = "__worker__"


@tells(ConfigError, OSError, subprocess.CalledProcessError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "paper"))
    parser.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="name in experiments/configs/, or a path (default: quickstart, or crnn for paper)",
    )
    add_overrides(parser)
    parser.add_argument(
        "--devices", type=int, nargs="+", metavar="N", help="run: numbers of devices (default: 1 2 4 8)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="run: steps of each, in two dispatches (default: 20)")
    parser.add_argument(
        "--rate", type=float, metavar="N", help="paper: images/s of one chip (default: 60,000, crnn on an H200)"
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="paper: batch of one chip (default: 512); a shared one is 8 times that"
    )
    args = parser.parse_args(argv)
    defaults = {"devices": [1, 2, 4, 8], "steps": 20} if args.what == "run" else {"rate": 60_000.0, "batch": 512}
    for name in ("devices", "steps", "rate", "batch"):
        if getattr(args, name) is None:
            setattr(args, name, defaults.get(name))
        elif name not in defaults:
            parser.error(f"--{name} does not work with {args.what}; set the batch size with --set run.batch_size=N")
    config = override(load_config(args.config or ("quickstart" if args.what == "run" else "crnn")), args.set)
    if args.what == "paper":
        if args.rate <= 0 or args.batch < 1:
            raise ConfigError("--rate must be above 0 and --batch at least 1")
        print(on_paper(step_traffic(config), rate=args.rate, batch=args.batch))
        return 0
    if args.steps < 2 or args.steps % 2 or min(args.devices) < 1:
        raise ConfigError("--steps must be even and at least 2, and --devices at least 1")
    measure(config, args.devices, steps=args.steps)
    return 0


def measure(config: Config, devices: list[int], *, steps: int) -> None:
    """Prints a row for each way to split the batch, each run in processes of its own."""
    found = step_traffic(config)
    print(f"{config.name}, batch {config.run.batch_size}, {steps} steps; each device sums {found.bytes / 1e6:.2f} MB")
    print(f"with the others at every step, in {found.messages} messages")
    print(f"{'devices':>7}  {'processes':>9}  {'images/s':>8}  {'last loss':>9}  {'off by':>8}")
    first = None
    for count, processes in [*((n, 1) for n in devices), *((n, 2) for n in devices if n % 2 == 0)]:
        losses, seconds = run_processes(config, count, processes, steps=steps)
        first = first or losses
        apart = max(abs(a - b) / abs(b) for a, b in zip(losses, first, strict=True))
        rate = config.run.batch_size * steps / 2 / seconds
        print(f"{count:>7}  {processes:>9}  {rate:>8,.0f}  {losses[-1]:>9.4f}  {apart:>8.0e}", flush=True)


def run_processes(config: Config, devices: int, processes: int, *, steps: int) -> tuple[list[float], float]:
    """The loss at every step, and the seconds of the second half of the steps, of a run over `devices` CPU devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices // processes)}
    options = {"config": to_json(config), "steps": steps, "processes": processes, "coordinator": coordinator}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, WORKER, json.dumps(options | {"process": i})],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    outputs = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        if process.returncode:
            last = [line for line in errors.splitlines() if line.strip()][-1:]
            raise ConfigError(f"{devices} devices, {processes} processes: {' '.join(last)}")
    result = json.loads(outputs[0][0].splitlines()[-1])
    return result["losses"], result["seconds"]


def work(*, config: str, steps: int, processes: int, coordinator: str, process: int) -> dict:
    """One process of a run: takes the steps in two dispatches, as `training.loop` does."""
    if processes > 1:
        parallel.initialize(coordinator, processes, process)
    config = from_json(config)
    size, axis = parallel.per_device(config.run.batch_size), parallel.axis_name()
    init_key, run_key = jax.random.split(jax.random.key(config.run.seed))
    model, tx = build(config.model, axis_name=axis), make_optimizer(config.optimizer, config.run.steps)
    dispatch = parallel.make_train(
        partial(train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay, axis_name=axis),
        partial(train_batch, config=config, size=size),
        batch_size=config.run.batch_size,
        length=steps // 2,
    )
    state = create_state(init_key, model, tx, config.model)
    state, words, run_key = parallel.replicate((state, load_words(config)[0], run_key))
    losses = []
    for _ in range(2):
        began = time.perf_counter()
        state, metrics = dispatch(state, words, run_key)
        losses += parallel.fetch(metrics["loss"]).tolist()
        seconds = time.perf_counter() - began
    return {"losses": losses, "seconds": seconds}


def step_traffic(config: Config) -> Traffic:
    """What a training step of a config sends, for any number of devices. Raises ConfigError."""
    axis = parallel.AXIS
    model, tx = build(config.model, axis_name=axis), make_optimizer(config.optimizer, config.run.steps)
    key, size, slots = jax.random.key(0), 4, config.data.max_length
    # Without the axis, since `init` runs outside it; the parameters are the same.
    state = jax.eval_shape(lambda key: create_state(key, build(config.model), tx, config.model), key)
    image = jax.ShapeDtypeStruct((size, config.model.height, config.model.width), "uint8")
    label, length = jax.ShapeDtypeStruct((size, slots), "int32"), jax.ShapeDtypeStruct((size,), "int32")
    step = partial(train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay, axis_name=axis)
    return traffic(step, state, Batch(image, label, length), key, axis=axis)


def on_paper(found: Traffic, *, rate: float, batch: int) -> str:
    """A Markdown table of the share of the time, in per cent, that chips spend computing."""
    shared = 8 * batch
    lines = [
        f"{found.bytes / 1e6:.1f} MB a step in {found.messages} messages, {rate:,.0f} images/s a chip (--rate)",
        "",
        "| chips | " + " | ".join(f"{name}: {batch} a chip | {shared} in all" for name in LINKS) + " |",
        "| ---" + "|---" * 2 * len(LINKS) + " |",
    ]
    for chips in CHIPS:
        cells = []
        for link in LINKS.values():
            for size in (batch, shared / chips):
                cells.append(f"{100 * share_computing(found, link, chips=chips, compute=size / rate):.0f}")
        lines.append(f"| {chips} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        print(json.dumps(work(**json.loads(sys.argv[2]))))
        sys.exit(0)
    run(main)
