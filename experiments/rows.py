"""The folder of a study: what all its runs have in common, and a file of results, a line of JSON a run."""

import json
from pathlib import Path

from crnn_jax.config import Config, ConfigError, from_json, to_json
from crnn_jax.data.whole import write_whole
from crnn_jax.section import differences
from crnn_jax.training.checkpoint import find_model
from crnn_jax.training.start import images_seen


def claim(out: Path, base: Config, init: str | None, words: dict[str, int], held_out: int | None = None) -> None:
    """Notes what the runs of a folder have in common: a config, the model that they start from, the words they read.

    Of words there are their names and how many they are; `held_out` is how many of each rendered kind, where that is
    not the config's. Of the model it is the name that counts, and how many images its weights have seen: a bundled one
    learns more with time.

    Raises ConfigError where that is something else there.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, seen = out / "base.json", images_seen(find_model(init)) if init else None
    if path.exists():
        try:
            there = json.loads(path.read_text())
            changed = list(differences(from_json(json.dumps(there["config"])), base))
            changed += ["--init"] if (there["init"], there.get("init_images_seen", seen)) != (init, seen) else []
            before = there.get("words", words)
            same = before == words if isinstance(before, dict) else sorted(before) == sorted(words)  # once names alone
            changed += [] if same else ["--data"]
            changed += ["--held-out"] if there.get("held_out", held_out) != held_out else []
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: is not what a study writes: {error}") from None
        if changed:
            raise ConfigError(f"{out} holds runs of another {', '.join(changed[:4])}; take another --out")
    claimed = {"config": json.loads(to_json(base)), "init": init, "init_images_seen": seen}
    claimed |= {"words": words, "held_out": held_out}
    write_whole(path, (json.dumps(claimed, indent=2) + "\n").encode())


def read_rows(path: Path) -> list[dict]:
    """The runs of a results file; none where there is no file. Raises ConfigError."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except ValueError as error:
        raise ConfigError(f"{path}: a line that is no JSON: {error}") from None


def add_rows(path: Path, rows: list[dict]) -> None:
    """Adds runs to a results file: all of them or, where it is killed, none. Raises ConfigError."""
    write_whole(path, "".join(json.dumps(row) + "\n" for row in read_rows(path) + rows).encode())
