"""Trains one config, of `experiments/configs/` or of a file like those; resumes if its workdir exists.

python experiments/train.py [--config NAME|PATH] [--set a.b=VALUE ...] [--workdir DIR] [--init MODEL]

On a CPU with several cores, each core takes its share of every batch, as several GPUs would.
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
        "--config", default="quickstart", metavar="NAME|PATH", help="name in experiments/configs/, or a path"
    )
    add_overrides(parser)
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="folder of the run (default: runs/NAME)")
    parser.add_argument(
        "--init", metavar="MODEL", help="start from the weights of a bundled model, model folder or workdir"
    )
    cpu_help = "CPU cores that share every batch (default: as many as get at least 16 words each)"
    parser.add_argument("--cpu_devices", type=int, metavar="N", help=cpu_help)
    hosts = parser.add_argument_group("training on several hosts, with one process each")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    hosts.add_argument("--num_processes", type=int, default=1)
    hosts.add_argument("--process_id", type=int, default=0)
    args = parser.parse_args(argv)
    if args.coordinator is None and (args.num_processes, args.process_id) != (1, 0):
        parser.error("--num_processes and --process_id need a --coordinator, or each host trains a model of its own")
    if args.coordinator is not None and not re.fullmatch(r".+:\d+", args.coordinator):
        parser.error(f"--coordinator {args.coordinator}: expected HOST:PORT")
    if not 0 <= args.process_id < args.num_processes:
        parser.error(f"--process_id {args.process_id}: expected 0 to {args.num_processes - 1}, below --num_processes")

    try:
        config = configs.override(load_config(args.config), args.set)
        parallel.leave_out_fusion_emitters()
        if args.cpu_devices is not None or not args.coordinator:
            parallel.share_cpu(args.cpu_devices, batch_size=config.run.batch_size)
        init = find_model(args.init) if args.init else None
        workdir = args.workdir or Path("runs") / config.name
        # Two runs in one workdir would resume each other's checkpoints. The processes of one run share it.
        with only_one(workdir) if args.process_id == 0 else nullcontext():
            if args.coordinator:
                parallel.initialize(args.coordinator, args.num_processes, args.process_id)
            done = train(config, workdir, init=init)
    except KeyboardInterrupt:  # during set-up, or a second one while saving
        print(
            "train.py: stopped at once; run the same command to continue from the last checkpoint, if any",
            file=sys.stderr,
        )
        return 130
    return 0 if done["step"] == config.run.steps else 130  # stopped, and saved


def load_config(name: str) -> Config:
    """The config that `get_config` returns in experiments/configs/NAME.py, or in another file, given by its path (.py).

    Raises ConfigError for an unknown name, listing those there are, and for a faulty file.
    """
    paths = {path.stem: path for path in sorted(CONFIGS.glob("*.py"))}
    path = Path(name) if name.endswith(".py") and os.path.isfile(name) else paths.get(name.removesuffix(".py"))
    if path is None:
        raise ConfigError(f"no config {name!r}: expected a .py file, or a name in {CONFIGS}: {', '.join(paths)}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except ConfigError:
        raise
    except Exception as error:  # whatever is wrong in a user's file
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    if type(config) is not Config:  # checkpoints with another class could not be opened
        raise ConfigError(f"{path}: get_config() returned {type(config).__name__}, not a Config")
    return config


if __name__ == "__main__":
    run(main)
