"""Times what a run spends its hours on; times on a busy machine are noisy, so compare within one call.

    python experiments/bench.py render [--styles mjsynth photo ...]      (on one core: taskset -c 0 python ...)
    python experiments/bench.py step [--config NAME] [--set a.b=VALUE ...]

render: words a second of rendering alone, a row a style. step: images a second of training steps that render their own
words, and of the same steps on words that are there already, which shows what rendering costs.
"""

import argparse
import statistics
import sys
import time
from functools import partial

import jax
from results import cpus
from train import load_config

from crnn_jax.config import Config, ConfigError, override
from crnn_jax.model import build
from crnn_jax.synth.batch import load_source, synth_batch
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step

ROUNDS = 7  # measured in turn; the median counts
SECONDS = 0.5  # about, of one round of one row


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("render", "step"))
    parser.add_argument("--styles", nargs="+", default=["plain", "mjsynth", "photo"], metavar="NAME")
    parser.add_argument("--config", default="tiny", metavar="NAME", help="a file of experiments/configs/")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=VALUE", help="overrides")
    args = parser.parse_args(argv)
    try:
        config = override(load_config(args.config), args.set)
        if args.what == "render":
            rates = render_rates({name: override(config, [f"data.style={name}"]) for name in args.styles})
        else:
            rates = step_rates(config)
    except ConfigError as error:
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
