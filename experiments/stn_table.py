"""The results of stn_study.py as tables: means over the seeds with 95 % intervals."""

import math
import statistics
from pathlib import Path

from rows import read_rows
from scipy.stats import t as student
from stn_words import KINDS

from crnn_jax.config import ConfigError
from crnn_jax.stn import Diagnosis, collapse

CONVERGED = 50.0  # minimum accuracy in per cent on the kind of words that is read best


def read_networks(path: Path) -> list[dict]:
    """The results of stn_study.py in a file; none if there is no file. Raises ConfigError for other files."""
    rows = read_rows(path)
    if not all({"change", "seed"} <= row.keys() for row in rows):
        raise ConfigError(f"{path}: not a results file of stn_study.py")
    return rows


def words_read(rows: list[dict]) -> list[str]:
    """The names of the kinds and datasets that all networks read."""
    return rows[0].get("words", list(KINDS))


def by_seed(rows: list[dict], change: str) -> dict[int, dict]:
    """The networks of one setting by their seeds."""
    return {row["seed"]: row for row in rows if row["change"] == change}


def interval(values: list[float]) -> tuple[float, float]:
    """The mean and half its 95 % interval, by Student's t; nan for one value."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def has_converged(row: dict) -> bool:
    """Whether it reads half of the kind that it reads best, and its transformer, if it has one, has not collapsed."""
    # Values of the last dispatch; without a transformer, those of an unchanged image.
    last = [row.get(f"stn_{name}", [of_none])[-1] for name, of_none in zip(Diagnosis._fields, (0, 0, 1), strict=True)]
    best = max(row[kind] for kind in words_read([row]))
    return best >= CONVERGED and collapse(Diagnosis(*last), bypass=row.get("bypass", 0.0)) is None


def average(row: dict, kinds: list[str]) -> float:
    """The mean accuracy over kinds of words, with equal weights."""
    return statistics.mean(row[kind] for kind in kinds)


def differences(rows: dict[int, dict], base: dict[int, dict], kinds: list[str]) -> list[float]:
    """Differences of the mean accuracies over `kinds`, for each seed in both; `rows` and `base` are keyed by seed."""
    return [average(rows[seed], kinds) - average(base[seed], kinds) for seed in sorted(rows.keys() & base.keys())]


def table(study: str, settings: dict[str, str], rows: list[dict], kinds: list[str]) -> str:
    """A Markdown table, the best setting first; "" if none was trained.

    The last two columns are the difference from the config, and how differently the words are transformed
    (`stn.spread`), in per cent of half the image.
    """
    base = by_seed(rows, "")
    there = {name: runs for name, change in settings.items() if (runs := by_seed(rows, change))}
    order = sorted(there, key=lambda name: -statistics.mean(average(row, kinds) for row in there[name].values()))
    header = [study, "converged", "all", *kinds, "against the config", "spread"]
    lines = [" | ".join(header), "|".join("---" for _ in header)]
    for name in order:
        runs = list(there[name].values())
        columns = [
            shown([average(row, kinds) for row in runs]),
            *(shown([row[kind] for row in runs]) for kind in kinds),
        ]
        apart = differences(there[name], base, kinds) if settings[name] else []
        converged = f"{sum(map(has_converged, runs))} of {len(runs)}"
        spreads = [100 * row["stn_spread"] for row in runs if "stn_spread" in row]
        columns += [shown(apart, sign="+") if apart else "", shown(spreads) if spreads else ""]
        lines.append(" | ".join([name, converged, *columns]))
    return "\n".join(f"| {line} |" for line in lines) if order else ""


def difference_table(study: str, settings: dict[str, str], rows: list[dict], kinds: list[str]) -> str:
    """A Markdown table of how much more of each kind a setting reads than the config, by seed; "" if none is shared."""
    base = by_seed(rows, "")
    lines = [" | ".join([f"{study}, against the config", "seeds", *kinds]), "|".join("---" for _ in ("", "", *kinds))]
    for name, change in settings.items():
        runs = by_seed(rows, change)
        if change and (shared := runs.keys() & base.keys()):
            columns = [shown(differences(runs, base, [kind]), sign="+") for kind in kinds]
            lines.append(" | ".join([name, str(len(shared)), *columns]))
    return "\n".join(f"| {line} |" for line in lines) if len(lines) > 2 else ""


def shown(values: list[float], sign: str = "") -> str:
    """Mean ± half the 95 % interval; only the mean for a single value."""
    mean, half = interval(values)
    return f"{mean:{sign}.1f}" if math.isnan(half) else f"{mean:{sign}.1f} ± {half:.1f}"
