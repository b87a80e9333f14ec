"""The page's section on the spatial transformer: what it does to all words in numbers, and to some in drawings."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from crnn_jax.data.sample import Dataset, Sample
from crnn_jax.evaluation import Evaluation, Word, mean_diagnosis
from crnn_jax.reader import Reader, Transform
from crnn_jax.report.charts import Group, accuracy_chart, count_groups
from crnn_jax.report.element import aligned, figure, number_table, picture, section, source_cell
from crnn_jax.report.place import Place, places
from crnn_jax.report.rectification import draw_grid, enlarged
from crnn_jax.stn import collapse

EACH = 3  # words read right, and as many read wrong, for each kind shown
BINS = 8  # of the deviation, roughly
OUTSIDE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # the lower ends of all groups but the first
SAME = 1e-3  # deviations closer than this count as one transform: a twentieth of a pixel at a width of 100
DRAWN, SHOWN = 5, 2.5  # pixels drawn, and CSS pixels shown, per image pixel


def transformer_section(reader: Reader, datasets: dict[str, Dataset], evaluations: dict[str, Evaluation]) -> str:
    """The section as HTML, for words that were read with `diagnose`. See `page.report` for the arguments."""
    found = places(evaluations)
    words, stn = [place.word for place in found], reader.config.model.stn
    on = "the image, before it is read"
    if stn.placement != "image":
        on = f"the features after {stn.placement}; the image that they come from is drawn"
    note = (
        f"A spatial transformer ({stn.kind}) resamples {on}. Deviation: how far it moves the points along the upper "
        "and the lower edge (root mean square; the image is 2 wide and 2 high); 0 is the identity. Outside: the "
        "share of its samples beyond the edges. Contrast: how much of it the transformer keeps."
    )
    warning = "".join(f'<p class="warning">{escape(line)}</p>' for line in _warnings(words))
    charts = (
        '<div class="pair">'
        + figure(accuracy_chart(by_deviation(words), axis="deviation from the identity"))
        + figure(accuracy_chart(by_outside(words), axis="samples outside, per cent"))
        + "</div>"
    )
    quantiles = f'<div class="scroll quantiles">{_quantiles(words)}</div>'
    body = f"{warning}{charts}{quantiles}{_examples(reader, datasets, found)}"
    return section("What the transformer does", note, body)


def by_deviation(words: Sequence[Word]) -> list[Group]:
    """Groups by deviation: about BINS of equal width, and an open last one."""
    deviations = [word.diagnosis.deviation for word in words] or [0.0]
    low, high = min(deviations), max(float(np.quantile(deviations, 0.98)), 1e-6)
    step = _round_step((high - low) / BINS)
    first = math.floor(low / step)
    count = max(math.ceil(high / step) - first, 1)
    ends = [step * (first + i) for i in range(count + 1)]
    names = [f"{a:.4g}–{b:.4g}" for a, b in zip(ends, ends[1:], strict=False)] + [f"{ends[-1]:.4g}+"]
    return count_groups(words, names, lambda word: min(math.floor(word.diagnosis.deviation / step) - first, count))


def by_outside(words: Sequence[Word]) -> list[Group]:
    """Groups by the share of samples outside."""
    percent = [f"{100 * end:g}" for end in OUTSIDE]
    names = [f"<{percent[0]}", *(f"{a}–{b}" for a, b in zip(percent, percent[1:], strict=False)), f"{percent[-1]}+"]
    return count_groups(words, names, lambda word: sum(word.diagnosis.outside >= end for end in OUTSIDE))


def choose(words: Sequence[Place]) -> dict[str, list[Place]]:
    """Words that show the range: the largest, middle and smallest deviations, each with some right, some wrong."""
    chosen: dict[str, list[Place]] = {"farthest from the identity": [], "in the middle": [], "nearest to it": []}
    for right in (True, False):
        rest = [place for place in words if place.word.correct == right]
        rest.sort(key=lambda place: -place.word.diagnosis.deviation)
        far, rest = rest[:EACH], rest[EACH:]
        rest, near = (rest[:-EACH], rest[-EACH:]) if rest else ([], [])
        begin = max(len(rest) - EACH, 0) // 2
        for kind, found in zip(chosen, (far, rest[begin : begin + EACH], near), strict=True):
            chosen[kind] += found
    return {kind: found for kind, found in chosen.items() if found}


def _warnings(words: Sequence[Word]) -> list[str]:
    """What is wrong with the transformer itself, in sentences."""
    if not words:
        return []
    reason = collapse(mean_diagnosis(words))
    lines = [f"It has collapsed: {reason}."] if reason else []
    low, high = np.quantile([word.diagnosis.deviation for word in words], (0.02, 0.98))
    if len(words) > 1 and high - low < SAME:
        lines.append("It does the same to every word, or nearly: its localisation net has not learnt to use the image.")
    return lines


def _round_step(least: float) -> float:
    """The smallest of ..., 0.1, 0.2, 0.5, 1, 2, 5, 10, ... that is at least `least` and at least 0.001."""
    least = max(least, 1e-3)
    decade = 10.0 ** math.floor(math.log10(least))
    return next((factor * decade for factor in (1, 2, 5) if factor * decade >= least * 0.999), 10 * decade)


def _quantiles(words: Sequence[Word]) -> str:
    if not words:
        return ""
    head = ("over all words", "mean", "minimum", "5 %", "median", "95 %", "maximum")
    lines = []
    for i, (name, factor, digits) in enumerate((("deviation", 1, 3), ("outside, %", 100, 1), ("contrast, %", 100, 0))):
        values = factor * np.array([word.diagnosis[i] for word in words])
        numbers = [values.mean(), *np.quantile(values, [0, 0.05, 0.5, 0.95, 1])]
        lines.append((name, *(f"{number:.{digits}f}" for number in numbers)))
    return number_table(head, lines)


def _examples(reader: Reader, datasets: dict[str, Dataset], words: Sequence[Place]) -> str:
    """Rows of words: the input with grid and points, the rectified image, if any, and what was read."""
    on_image = reader.config.model.stn.placement == "image"
    head = ["where it looks", *(["what it returns"] if on_image else [])]
    columns = "".join(f'<th class="picture">{title}</th>' for title in head) + "<th>truth, reading</th>"
    columns += "".join(f'<th class="number">{title}</th>' for title in ("deviation", "outside", "contrast"))
    bodies = []
    for kind, chosen in choose(words).items():
        samples = [place.sample(datasets) for place in chosen]
        images = [reader.fit(sample.image) for sample in samples]
        rows = [
            _row(place, sample, image, transform, kind=reader.config.model.stn.kind)
            for place, sample, image, transform in zip(chosen, samples, images, reader.transform(images), strict=True)
        ]
        bodies.append(f'<tbody><tr><th colspan="{len(head) + 5}">{kind}</th></tr>{"".join(rows)}</tbody>')
    table = f'<thead><tr>{columns}<th class="source">dataset, image, label</th></tr></thead>{"".join(bodies)}'
    return f'<div class="scroll"><table class="transforms">{table}</table></div>'


def _row(place: Place, sample: Sample, image: np.ndarray, transform: Transform, *, kind: str) -> str:
    drawn = [draw_grid(image, transform.parameters, kind=kind, scale=DRAWN, clear=True)]
    if transform.image is not None:
        drawn.append(np.asarray(enlarged(transform.image, scale=DRAWN)))
    pictures = "".join(f"<td>{picture(x, width=SHOWN / DRAWN * x.shape[1])}</td>" for x in drawn)
    deviation, outside, contrast = place.word.diagnosis
    numbers = (f"{deviation:.3f}", f"{100 * outside:.1f} %", f"{100 * contrast:.0f} %")
    return (
        f'<tr>{pictures}<td class="words">{aligned(place.word)}</td>'
        + "".join(f'<td class="number">{number}</td>' for number in numbers)
        + f"{source_cell(place, sample)}</tr>"
    )
