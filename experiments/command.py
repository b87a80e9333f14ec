"""What the scripts share: how they start and report errors (`run(main)`, `@tells(ERROR, ...)`), and common options."""

import argparse
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from crnn_jax.lexicon import BONUS, Lexicon, load_lexicon


def tells(*errors: type[Exception]) -> Callable:
    """Decorates a script's `main(argv) -> int`: on these errors it prints one line with its name and returns 1."""

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def told(*args, **options) -> int:
            logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs every step of opening and saving
            try:
                return main(*args, **options)
            except BrokenPipeError:  # an OSError, but one that `run` handles
                raise
            except errors as error:
                print(f"{Path(main.__code__.co_filename).name}: {error}", file=sys.stderr)
                return 1

        return told

    return decorate


def add_overrides(parser: argparse.ArgumentParser, *, help: str = "config fields to override") -> None:
    """Adds --set, which overrides fields of a config."""
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="a.b=VALUE", help=help)


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every script that compares readings with labels: which part of each dataset, and how."""
    from crnn_jax.data.dataset import PARTS  # not at the top: scripts that only read do not need it

    parser.add_argument(
        "--part", choices=PARTS, default="all", help="all of each dataset, its fixed tenth, or the rest"
    )
    parser.add_argument("--cased", action="store_true", help="compare case as well")
    parser.add_argument("--punctuation", action="store_true", help="compare punctuation marks as well")


def add_reading(parser: argparse.ArgumentParser, *, among: str | None = None) -> None:
    """Adds the options for how words are read: --lexicon, --bonus, --thorough and, if `among` is its help, --among."""
    parser.add_argument("--lexicon", metavar="english|FILE", help="words to expect; others can still be read")
    parser.add_argument(
        "--bonus", type=float, metavar="NATS", help=f"how much likelier they are, per character (default: {BONUS})"
    )
    if among:
        parser.add_argument("--among", metavar="FILE", help=among)
    parser.add_argument(
        "--thorough", action="store_true", help="read each word with three margins: more accurate, three times as slow"
    )


def check_reading(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the process with an error if options of `add_reading` do not go together."""
    if args.bonus is not None and args.lexicon is None:
        parser.error("--bonus works only with --lexicon")
    if args.lexicon is not None and getattr(args, "among", None) is not None:
        parser.error("choose either --lexicon, which prefers its words, or --among, which allows no others")


def lexicon_of(args: argparse.Namespace) -> Lexicon | None:
    """The lexicon that the options of `add_reading` name. Raises LexiconError."""
    if args.lexicon is None:
        return None
    return load_lexicon(args.lexicon, bonus=BONUS if args.bonus is None else args.bonus)


def run(main: Callable[[], int]) -> None:
    """Runs a command and exits with its code; Ctrl-C or a closed output pipe prints no traceback."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: stopped", file=sys.stderr)
        sys.exit(130)  # the shells' convention
    except BrokenPipeError:  # the program that reads the output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
