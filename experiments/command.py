"""How the scripts here start: `run(main)`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path


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
