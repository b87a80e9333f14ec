"""Where the time of a training step goes, by part of the network, forward and backward.

    python experiments/step_profile.py [--config NAME] [--set a.b=VALUE ...] [--batch N] [--steps N]

Runs some steps on ready words (random ones, of the network's size) under JAX's profiler. Every operation that ran is
traced back to the part that it comes from, by the names that the compiler keeps. One that the compiler has fused from
several parts counts for the part that it is named after, and a kernel that a GPU's compiler uses for two equal
operations counts for one of them. On a CPU the times of all threads are added up, so that the total exceeds the step's
wall time to the extent that threads run in parallel.
"""

import argparse
import re
import tempfile
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import jax
from command import add_overrides, run, tells
from jax.profiler import ProfileData
from lineup import random_words
from train import load_config

from crnn_jax.config import Config, ConfigError, override
from crnn_jax.model import build
from crnn_jax.synth.batch import Batch
from crnn_jax.training.optimizer import make_optimizer
from crnn_jax.training.parallel import leave_out_fusion_emitters
from crnn_jax.training.state import create_state
from crnn_jax.training.step import train_step

Part = tuple[str, bool]  # its name, and whether it is the backward pass
Event = tuple[str, str]  # an operation's name in the compiled program, and its kernel's

# They only run other operations, which are counted themselves.
HOLLOW = ("while", "call", "conditional")
REPLAYED = "command_buffer"


@tells(ConfigError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="crnn", metavar="NAME|PATH", help="name in experiments/configs/, or a path")
    add_overrides(parser)
    parser.add_argument("--batch", type=int, default=64, metavar="N")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="steps under the profiler")
    args = parser.parse_args(argv)
    if min(args.batch, args.steps) < 1:
        raise ConfigError("--batch and --steps must be at least 1")
    config = override(load_config(args.config), ["model.dtype=float32", *args.set])
    leave_out_fusion_emitters()  # as train.py does
    seconds, parts = profile(config, batch=args.batch, steps=args.steps)
    device = jax.devices()[0].device_kind
    print(f"{config.name}, batch {args.batch}, {device}: {1e3 * seconds:.1f} ms a step by the clock")
    print(format_parts(parts))
    return 0


def profile(config: Config, *, batch: int, steps: int) -> tuple[float, Counter[Part]]:
    """The wall time of a step, and the times of its parts, in seconds."""
    model, tx = build(config.model), make_optimizer(config.optimizer, config.run.steps)
    key, words = jax.random.key(0), random_words(config, batch)
    state = create_state(key, model, tx, config.model)
    words = jax.device_put(Batch(words["images"], words["labels"], words["lengths"]))
    step = partial(train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay)
    compiled = jax.jit(step, donate_argnums=0).lower(state, words, key).compile()
    state, _ = jax.block_until_ready(compiled(state, words, key))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            began = time.perf_counter()
            for _ in range(steps):
                state, metrics = compiled(state, words, key)
            jax.block_until_ready(metrics)
            seconds = (time.perf_counter() - began) / steps
        (path,) = Path(folder).rglob("*.xplane.pb")
        events = operation_times(ProfileData.from_file(str(path)))
    return seconds, parts_of(events, compiled.as_text(), steps=steps)


def parts_of(events: Counter[Event], program: str, *, steps: int) -> Counter[Part]:
    """Seconds per step of each part, from what ran in `steps` steps and the compiled program."""
    origins, operations = origins_of(program)
    kernels = {name.replace(".", "_"): name for name in operations}  # a GPU's are named after their operations
    parts, replayed, unnamed = Counter(), defaultdict(Counter), Counter()
    for (operation, kernel), spent in events.items():
        # What a GPU replays in one piece is one operation with kernels of many; those of a library have other names.
        in_piece = operation.startswith(REPLAYED)
        name = kernels.get(kernel) if in_piece else operation
        if in_piece and name is None:
            unnamed[operation] += spent / steps
        elif name in operations and not name.startswith(HOLLOW):
            part = part_of(origins.get(name, ""))
            parts[part] += spent / steps
            replayed[operation][part] += spent
    for operation, spent in unnamed.items():  # counts for the part that takes most of the piece
        part = max(replayed[operation], key=replayed[operation].get, default=part_of(""))
        parts[part] += spent
    return parts


def operation_times(data: ProfileData) -> Counter[Event]:
    """Seconds of every operation that ran, summed over all threads, or over all streams of a GPU."""
    times = Counter()
    planes = [plane for plane in data.planes if plane.name.startswith("/device:")]
    for plane in planes or (plane for plane in data.planes if plane.name.startswith("/host:CPU")):
        for line in plane.lines:
            for event in line.events:
                times[dict(event.stats).get("hlo_op", event.name), event.name] += event.duration_ns / 1e9
    return times


def origins_of(program: str) -> tuple[dict[str, str], set[str]]:
    """JAX's name stack of each operation in a compiled program, by the operation's name; and all names of operations.

    An operation without one, added by the compiler, takes that of its first operand that has one.
    """
    origins, operands = {}, {}
    for line in program.splitlines():
        if match := re.match(r"\s*(?:ROOT )?%?([\w.-]+) = ", line):
            named = re.search(r'op_name="([^"]*)"', line)
            if named:
                origins[match[1]] = named[1]
            else:
                operands[match[1]] = re.findall(r"%([\w.-]+)", line[match.end() :])
    nameless = list(operands)
    while nameless:
        found = {name: next(filter(None, map(origins.get, operands[name])), None) for name in nameless}
        origins |= {name: origin for name, origin in found.items() if origin}
        if not any(found.values()):
            break
        nameless = [name for name in nameless if not found[name]]
    return origins, {*origins, *operands}


def part_of(origin: str) -> Part:
    """The part of the step that a name stack belongs to: a module of the network, or a named scope of the step."""
    names = re.findall(r"[\w]+", re.sub(r"\b(jit|jvp|transpose|vmap|checkpoint|custom_vjp_call)\(", "", origin))
    is_backward = "transpose(" in origin
    inside = names[names.index("CRNN") + 1 :] if "CRNN" in names else names
    known = [
        name for name in inside if re.fullmatch(r"stn|block\d+|bridge\d+|lstm\d+|head|ctc|optimizer|readings", name)
    ]
    return (known[0] if known else "the rest"), is_backward


def format_parts(parts: Counter[Part]) -> str:
    """A Markdown table, sorted by the names of the parts: milliseconds, and the share of all of them."""
    total = sum(parts.values())
    names = sorted({name for name, _ in parts}, key=lambda name: (name == "the rest", name))
    lines = ["| part | forward ms | backward ms | of all |", "| ---|---|---|--- |"]
    for name in names:
        forward, backward = parts[name, False], parts[name, True]
        share = 100 * (forward + backward) / total
        lines.append(f"| {name} | {1e3 * forward:.1f} | {1e3 * backward:.1f} | {share:.1f} % |")
    passes = [1e3 * sum(spent for (_, way), spent in parts.items() if way == back) for back in (False, True)]
    return "\n".join([*lines, f"| all | {passes[0]:.1f} | {passes[1]:.1f} | |"])


if __name__ == "__main__":
    run(main)
