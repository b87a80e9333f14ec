"""Charts as inline SVG, drawn without a library; the page's style sheet gives their colours, light or dark.

Sizes are in the units of each chart's viewBox, which are CSS pixels unless the page is too narrow.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from crnn_jax.calibration import Bin
from crnn_jax.evaluation import Word
from crnn_jax.metrics import wilson_interval

WIDTH, LEFT, RIGHT = 560, 46, 14
TOP, BOTTOM = 16, 196  # of the accuracy panel: 100 and 0 per cent
COUNT_TOP, COUNT_BOTTOM = 226, 266  # of the panel of counts below it
HEIGHT = 306
CELL, MARGIN = 15, 24  # of the heat map


class Group(NamedTuple):
    """Words that have something in common, such as their length."""

    name: str
    count: int
    correct: int


def count_groups(words: Sequence[Word], names: Sequence[str], which: Callable[[Word], int]) -> list[Group]:
    """One group per name; `which` gives the index of a word's group."""
    counts, correct = Counter(map(which, words)), Counter(which(word) for word in words if word.correct)
    return [Group(name, counts[i], correct[i]) for i, name in enumerate(names)]


def accuracy_chart(groups: Sequence[Group], *, axis: str) -> str:
    """Accuracy of every group with its 95 % interval (Wilson 1927), and its number of words below."""
    step = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    parts, points = _grid(), []
    largest = max((group.count for group in groups), default=1)
    for i, (name, count, correct) in enumerate(groups):
        x = LEFT + (i + 0.5) * step
        parts.append(_text(x, COUNT_BOTTOM + 16, name, "middle"))
        parts += _count_bar(x, 0.56 * step, count, largest)
        if not count:
            continue
        low, high = (_y(bound) for bound in wilson_interval(correct, count))
        y = _y(correct / count)
        points.append(f"{x:.1f},{y:.1f}")
        note = f"{name}: {correct} of {count} words, {100 * correct / count:.1f} %"
        parts.append(f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(_titled(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3.5"', note))
        parts.append(_text(x, high - 5, f"{100 * correct / count:.0f}", "middle", "value"))
    line = f'<polyline class="line" points="{" ".join(points)}"/>'
    return _svg(WIDTH, HEIGHT, [line, *parts, _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, axis, "middle")])


def reliability_chart(table: Sequence[Bin]) -> str:
    """Accuracy of every bin of the reliability table as a bar, and its gap to the bin's mean confidence."""
    scale = WIDTH - LEFT - RIGHT
    parts, largest = _grid(), max((row.count for row in table), default=1)
    for row in table:
        x, width = LEFT + scale * row.low, scale * (row.high - row.low)
        parts += _count_bar(x + width / 2, 0.8 * width, row.count, largest)
        if not row.count:
            continue
        y, sure = _y(row.accuracy), _y(row.confidence)
        note = f"confidence {row.confidence:.3f}, accuracy {row.accuracy:.3f}, {row.count} words"
        place = f'x="{x + 1.5:.1f}" width="{width - 3:.1f}"'
        floor = max(y, sure)  # y points down: the lower of the two
        parts.append(f'<rect class="bar" {place} y="{floor:.1f}" height="{BOTTOM - floor:.1f}"/>')
        parts.append(_titled(f'<rect class="gap" {place} y="{min(y, sure):.1f}" height="{abs(y - sure):.1f}"', note))
        parts.append(f'<line class="level" x1="{x + 1.5:.1f}" x2="{x + width - 1.5:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<line class="ideal" x1="{LEFT}" y1="{BOTTOM}" x2="{WIDTH - RIGHT}" y2="{TOP}"/>')
    parts += [_text(LEFT + scale * tick / 5, COUNT_BOTTOM + 16, f"{tick / 5:.1f}", "middle") for tick in range(6)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "confidence", "middle"))
    return _svg(WIDTH, HEIGHT, parts)


def heat_map(substitutions: Counter[tuple[str, str]], occurrences: Counter[str], order: str) -> str:
    """Counts of (true, read) characters: a row per true one, a column per read one, more opaque for higher counts.

    Shows only characters that occur in a substitution, in the `order` of the charset, then those outside it.
    """
    found = {character for pair in substitutions for character in pair}
    characters = [c for c in order if c in found] + sorted(found - set(order))
    place = {character: MARGIN + i * CELL for i, character in enumerate(characters)}
    size = MARGIN + CELL * len(characters)
    largest = max(substitutions.values(), default=1)
    parts = [f'<rect class="field" x="{MARGIN}" y="{MARGIN}" width="{size - MARGIN}" height="{size - MARGIN}"/>']
    for character, at in place.items():
        parts.append(_text(at + CELL / 2, MARGIN - 6, character, "middle", "glyph"))
        parts.append(_text(MARGIN - 7, at + CELL - 3.5, character, "middle", "glyph"))
        parts.append(f'<rect class="self" x="{at}" y="{at}" width="{CELL - 1}" height="{CELL - 1}"/>')
    for (true, read), count in substitutions.items():
        strength = (count / largest) ** 0.75  # the many rare ones are pale but still visible
        share = 100 * count / occurrences[true]
        cell = f'<rect class="cell" x="{place[read]}" y="{place[true]}" width="{CELL - 1}" height="{CELL - 1}"'
        note = f"{true} read as {read}: {count} times, {share:.1f} % of all {true}"
        parts.append(_titled(f'{cell} fill-opacity="{0.05 + 0.95 * strength:.2f}"', note))
    return _svg(size, size, parts)


def _grid() -> list[str]:
    """The lines at 0 to 100 per cent, and the baseline of the counts."""
    parts = []
    for percent in (0, 25, 50, 75, 100):
        y = _y(percent / 100)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{percent}", "end"))
    parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{COUNT_BOTTOM}" y2="{COUNT_BOTTOM}"/>')
    return [*parts, _text(LEFT - 8, COUNT_BOTTOM, "words", "end")]


def _count_bar(x: float, width: float, count: int, largest: int) -> list[str]:
    height = (COUNT_BOTTOM - COUNT_TOP) * count / largest
    place = f'x="{x - width / 2:.1f}" y="{COUNT_BOTTOM - height:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return [f'<rect class="count" {place}/>', _text(x, COUNT_BOTTOM - height - 4, str(count), "middle", "small")]


def _y(share: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * share


def _text(x: int | float, y: int | float, text: str, anchor: str, kind: str = "label") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _titled(tag: str, note: str) -> str:
    """Completes an element, given as an opening tag without its `>`, with a tooltip."""
    return f"{tag}><title>{escape(note)}</title></{tag[1:].split()[0]}>"


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(parts)}</svg>'
