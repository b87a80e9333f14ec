"""What the scripts here share: how they start and fail, `run(main)` and `@tells(ERROR, ...)`, and common options."""

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from crnn_jax.lexicon import BONUS, Lexicon, load_lexicon


def tells(*errors: type[Exception]) -> Callable:
    """For a script's `main(argv) -> int`: these errors become one line with the script's name, and it returns 1."""

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def told(*args, **options) -> int:
            logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every step of opening and saving
            try:
                return main(*args, **options)
            except BrokenPipeError:  # an OSError, but not one to tell: see `run`
                raise
            except errors as error:
                print(f"{Path(main.__code__.co_filename).name}: {error}", file=sys.stderr)
                return 1

        return told

    return decorate


def add_overrides(parser: argparse.ArgumentParser, *, help: str = "overrides") -> None:
    """--set, the fields of a config."""
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=VALUE", help=help)


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """The options of every script that compares what is read with labels: which part of each dataset, and how."""
    from crnn_jax.data.dataset import PARTS  # not above: scripts that only read do without it

    parser.add_argument("--part", choices=PARTS, default="all", help="the fixed tenth of each dataset, or the rest")
    parser.add_argument("--cased", action="store_true", help="compare the case as well")
    parser.add_argument("--punctuation", action="store_true", help="compare punctuation marks as well")


def add_reading(parser: argparse.ArgumentParser, *, among: str | None = None) -> None:
    """How words are read: --lexicon with its --bonus, --thorough and, where `among` is its help, --among."""
    parser.add_argument("--lexicon", metavar="english|FILE", help="words that are expected; others can still be read")
    parser.add_argument(
        "--bonus", type=float, metavar="NATS", help=f"how much likelier, per character; {BONUS} unless given"
    )
    if among:
        parser.add_argument("--among", metavar="FILE", help=among)
    parser.add_argument("--thorough", action="store_true", help="look at each word three times, which takes so long")


def check_reading(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the process where the options of `add_reading` do not go together."""
    if args.bonus is not None and args.lexicon is None:
        parser.error("--bonus is that of a --lexicon")
    if args.lexicon is not None and getattr(args, "among", None) is not None:
        parser.error("either --lexicon, whose words are likelier, or --among, which has all that there are")


def lexicon_of(args: argparse.Namespace) -> Lexicon | None:
    """The lexicon that the options of `add_reading` name. Raises LexiconError."""
    if args.lexicon is None:
        return None
    return load_lexicon(args.lexicon, bonus=BONUS if args.bonus is None else args.bonus)


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
