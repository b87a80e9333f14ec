"""The results of a contest of bench.py: the rows of its table and of its JSON."""

import os
import platform
import re
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from contest import Result

from crnn_jax.data.sample import Sample
from crnn_jax.metrics import normalise

CEILINGS = ("product", "copy")  # tasks that only show what the chip can do
PACKAGES = ("jax", "jaxlib", "torch", "tesserocr", "rapidocr-onnxruntime")


def machine() -> dict[str, str | int | None]:
    """The processor and the versions of packages that a contest is held with; None for one that is not installed."""
    try:
        (name,) = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[:1]
    except (OSError, ValueError):  # not Linux, or the processor has no name there
        name = platform.processor() or platform.machine()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"processor": name, "cores": os.cpu_count()} | versions


def measured_ceilings(results: list[Result]) -> dict[str, float]:
    """Operations and bytes per second of the fastest large matrix product and the fastest large copy."""

    def best(task, field):
        runs = [result for result in results if result.contestant.task == task]
        return max(getattr(run.contestant, field) / statistics.median(run.seconds) for run in runs)

    return {"flops_per_second": best("product", "flops"), "bytes_per_second": best("copy", "bytes")}


def rows(results: list[Result], *, samples: list[Sample] | None = None) -> list[dict]:
    """One row per contestant except the ceilings; if they read labelled `samples`, with the percentage read right.

    Letters and digits are compared, ignoring case. Shares of the ceilings are 0..1, None if the need is not known.
    """
    tops = measured_ceilings(results)
    return [_row(result, tops, samples) for result in results if result.contestant.task not in CEILINGS]


def _row(result: Result, tops: dict[str, float], samples: list[Sample] | None) -> dict:
    contestant, seconds = result.contestant, statistics.median(result.seconds)
    right = None
    if samples:
        pairs = zip(result.answer, samples, strict=True)
        right = 100 * statistics.mean(normalise(text) == normalise(sample.label) for text, sample in pairs)

    def share(needed, name):
        return needed and needed / seconds / tops[name]

    return {
        "name": contestant.name,
        "words_per_second": contestant.words / seconds,
        "seconds": seconds,
        "rounds": result.seconds,
        "flops": contestant.flops,
        "share_of_product": share(contestant.flops, "flops_per_second"),
        "bytes": contestant.bytes,
        "share_of_copy": share(contestant.bytes, "bytes_per_second"),
        "first_call_seconds": result.first_call,
        "peak_memory_bytes": result.memory,
        "peak_device_memory_bytes": result.device_memory,
        "word_accuracy": right,
    }


def format_report(report: dict) -> str:
    """A report of bench.py as a table, with machine, settings and ceilings above it, and who was left out below."""
    flops, moved = (report["ceilings"][f"{name}_per_second"] / 1e9 for name in ("flops", "bytes"))
    told = ", ".join(f"{name} {value}" for name, value in report["machine"].items() if value is not None)
    lines = [
        told,
        f"{report['device']}, CPUs each: {report['threads']}, batch {report['batch']}, {report['dtype']}",
        f"at most {flops:,.1f} GFLOP/s (matrix product) and {moved:,.1f} GB/s (copy)",
    ]
    width = max(len(row["name"]) for row in report["contestants"])
    has_words = any(row["word_accuracy"] is not None for row in report["contestants"])
    has_device = any(row["peak_device_memory_bytes"] for row in report["contestants"])
    columns = [
        # Heading, its width, and the cell of a row.
        ("words/s", 9, lambda row: f"{row['words_per_second']:,.0f}"),
        ("ms a call", 10, lambda row: f"{1e3 * row['seconds']:,.2f}"),
        ("GFLOP", 8, lambda row: f"{row['flops'] / 1e9:,.3f}"),
        ("of product", 10, lambda row: f"{100 * row['share_of_product']:,.1f} %"),
        ("MB", 8, lambda row: f"{row['bytes'] / 1e6:,.1f}"),
        ("of copy", 8, lambda row: f"{100 * row['share_of_copy']:,.1f} %"),
        ("first call", 10, lambda row: f"{row['first_call_seconds']:,.1f} s"),
        ("memory", 9, lambda row: f"{row['peak_memory_bytes'] / 1e6:,.0f} MB"),
        *([("GPU memory", 10, lambda row: f"{row['peak_device_memory_bytes'] / 1e6:,.0f} MB")] if has_device else []),
        *([("right", 7, lambda row: f"{row['word_accuracy']:.1f} %")] if has_words else []),
    ]
    lines.append(f"{'':<{width}}" + "".join(f"  {heading:>{wide}}" for heading, wide, _ in columns))
    for row in report["contestants"]:
        lines.append(f"{row['name']:<{width}}" + "".join(f"  {_cell(row, cell):>{wide}}" for _, wide, cell in columns))
    if report["load"] > (os.cpu_count() or 1) / 4:
        lines.append(
            f"the machine was busy before (load {report['load']:.1f}): with more than one CPU, torch suffers by far"
            " the most, since its threads wait for one another"
        )
    reasons = report["left_out"]
    lines += [
        f"left out: {', '.join(name for name in reasons if reasons[name] == reason)}: {reason}"
        for reason in dict.fromkeys(reasons.values())
    ]
    return "\n".join(lines)


def _cell(row: dict, cell) -> str:
    try:
        return cell(row)
    except TypeError:  # None: not known
        return ""
