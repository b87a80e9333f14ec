"""Trains one experiment, of `experiments/configs/` or a file like those; with the workdir of before it goes on.

python experiments/train.py [--config NAME|PATH] [--set a.b=VALUE ...] [--workdir DIR] [--init MODEL]

On a CPU of several cores each takes its share of every batch, as several GPUs would.
"""

import argparse
import importlib.util
import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path

from command import add_overrides, run, tells

from crnn_jax import config as configs
from crnn_jax.config import Config, ConfigError
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.whole import only_one
from crnn_jax.images import ImageError
from crnn_jax.training import parallel
from crnn_jax.training.checkpoint import CheckpointError, find_model
from crnn_jax.training.loop import train

CONFIGS = Path(__file__).parent / "configs"


@tells(CheckpointError, ConfigError, DatasetError, FloatingPointError, ImageError, OSError)
def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", default="quickstart", metavar="NAME|PATH", help="of experiments/configs/, or a path"
    )
    add_overrides(parser)
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="default: runs/NAME")
    parser.add_argument("--init", metavar="MODEL", help="start from the weights of a bundled model, or of a folder")
    cpu_help = "CPU cores that share every batch (default: as many as have 16 words of it each)"
    parser.add_argument("--cpu_devices", type=int, metavar="N", help=cpu_help)
    hosts = parser.add_argument_group("several hosts, one process each")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    hosts.add_argument("--num_processes", type=int, default=1)
    hosts.add_argument("--process_id", type=int, default=0)
    args = parser.parse_args(argv)
    if args.coordinator is None and (args.num_processes, args.process_id) != (1, 0):
        parser.error("--num_processes and --process_id need a --coordinator, or each host trains a model of its own")
    if args.coordinator is not None and not re.fullmatch(r".+:\d+", args.coordinator):
        parser.error(f"--coordinator {args.coordinator}: expected HOST:PORT")
    if not 0 <= args.process_id < args.num_processes:
        parser.error(f"--process_id {args.process_id}: expected 0 to --num_processes - 1, {args.num_processes - 1}")

    try:
        config = configs.override(load_config(args.config), args.set)
        parallel.leave_out_fusion_emitters()
        if args.cpu_devices is not None or not args.coordinator:
            parallel.share_cpu(args.cpu_devices, batch_size=config.run.batch_size)
        init = find_model(args.init) if args.init else None
        workdir = args.workdir or Path("runs") / config.name
        # Two runs in one workdir would go on from each other's checkpoints. The processes of one run share it.
        with only_one(workdir) if args.process_id == 0 else nullcontext():
            if args.coordinator:
                parallel.initialize(args.coordinator, args.num_processes, args.process_id)
            done = train(config, workdir, init=init)
    except KeyboardInterrupt:  # while it was still setting up, or a second one while it saved
        print("train.py: stopped at once; the same command goes on from the last checkpoint, if any", file=sys.stderr)
        return 130
    return 0 if done["step"] == config.run.steps else 130  # stopped, and saved


def load_config(name: str) -> Config:
    """The config that `get_config` of experiments/configs/NAME.py gives, or of another file, named by a path in .py.

    Raises ConfigError, with the names there are.
    """
    paths = {path.stem: path for path in sorted(CONFIGS.glob("*.py"))}
    path = Path(name) if name.endswith(".py") and os.path.isfile(name) else paths.get(name.removesuffix(".py"))
    if path is None:
        raise ConfigError(f"there is no config {name!r} in {CONFIGS}, nor a file; there are: {', '.join(paths)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except ConfigError:
        raise
    except Exception as error:  # whatever is wrong in a file of one's own
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    if type(config) is not Config:  # of another class no checkpoint would open again
        raise ConfigError(f"{path}: get_config() gave {type(config).__name__}, no Config")
    return config


if __name__ == "__main__":
    run(main)
