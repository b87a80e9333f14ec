"""What the scripts here share: how they start and fail, `run(main)` and `@tells(ERROR, ...)`, and some options."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path


def tells(*errors: type[Exception]) -> Callable:
    """For a script's `main(argv) -> int`: what is told in one line, with the script's name, and returns 1."""

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def told(*args, **options) -> int:
            try:
                return main(*args, **options)
            except BrokenPipeError:  # an OSError, but not one to tell: see `run`
                raise
            except errors as error:
                print(f"{Path(main.__code__.co_filename).name}: {error}", file=sys.stderr)
                return 1

        return told

    return decorate


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """The options of all that compare what is read with labels: which part of each dataset, and how."""
    from crnn_jax.data.dataset import PARTS  # not above: who only reads does without it

    parser.add_argument("--part", choices=PARTS, default="all", help="the fixed tenth of each dataset, or the rest")
    parser.add_argument("--cased", action="store_true", help="compare the case as well")
    parser.add_argument("--punctuation", action="store_true", help="compare punctuation marks as well")


def run(main: Callable[[], int]) -> None:
    """Ends the process with the exit code of a command; Ctrl-C, or output that nobody reads, is no traceback."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: stopped", file=sys.stderr)
        sys.exit(130)  # as shells have it
    except BrokenPipeError:  # whoever reads the output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
