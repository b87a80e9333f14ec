"""The folder of a study: what all its runs have in common, and a file of results with one line of JSON per run."""

import json
from pathlib import Path

from crnn_jax.config import Config, ConfigError, from_json, to_json
from crnn_jax.data.whole import write_whole
from crnn_jax.section import differences
from crnn_jax.training.checkpoint import find_model
from crnn_jax.training.start import images_seen


def claim(out: Path, base: Config, init: str | None, words: dict[str, int], held_out: int | None = None) -> None:
    """Records what a folder's runs have in common: config, the model they start from (`init`), the words they read.

    `words` has the names of datasets and kinds of words, and their counts; `held_out` is the count of each rendered
    kind if it is not the config's. The model is identified by its name and the number of images that its weights have
    seen, since a bundled one may be trained further.

    Raises ConfigError if the folder has recorded something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, seen = out / "base.json", images_seen(find_model(init)) if init else None
    if path.exists():
        try:
            there = json.loads(path.read_text())
            changed = list(differences(from_json(json.dumps(there["config"])), base))
            changed += ["--init"] if (there["init"], there.get("init_images_seen", seen)) != (init, seen) else []
            before = there.get("words", words)
            same = before == words if isinstance(before, dict) else sorted(before) == sorted(words)  # once only names
            changed += [] if same else ["--data"]
            changed += ["--held-out"] if there.get("held_out", held_out) != held_out else []
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not a file that a study wrote: {error}") from None
        if changed:
            raise ConfigError(f"{out} has runs with a different {', '.join(changed[:4])}; choose another --out")
    claimed = {"config": json.loads(to_json(base)), "init": init, "init_images_seen": seen}
    claimed |= {"words": words, "held_out": held_out}
    write_whole(path, (json.dumps(claimed, indent=2) + "\n").encode())


def read_rows(path: Path) -> list[dict]:
    """The runs of a results file; none if there is no file. Raises ConfigError."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except ValueError as error:
        raise ConfigError(f"{path}: a line is not JSON: {error}") from None


def add_rows(path: Path, rows: list[dict]) -> None:
    """Adds runs to a results file: all of them, or none if the process is killed. Raises ConfigError."""
    write_whole(path, "".join(json.dumps(row) + "\n" for row in read_rows(path) + rows).encode())
