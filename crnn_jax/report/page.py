"""The page of evaluate.py --html: what a model reads wrong, seen. One file that needs no other."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from crnn_jax.calibration import expected_calibration_error, reliability
from crnn_jax.data.sample import Dataset
from crnn_jax.evaluation import Evaluation, Row, Word
from crnn_jax.metrics import edit_distance
from crnn_jax.model import CRNN, count_parameters
from crnn_jax.reader import Reader
from crnn_jax.report.charts import Group, accuracy_chart, heat_map, reliability_chart
from crnn_jax.report.confusion import Confusions, align, count_confusions
from crnn_jax.report.style import STYLE

WORST = 24  # words in each list
TOP = 12  # lines of each list of characters
LONGEST = 15  # characters: longer words are one group
HEIGHTS = (0, 12, 16, 20, 24, 32, 40, 48, 64)  # pixels: the lower ends of the groups
TALLEST = 128  # pixels: images as given are shown no taller


class Mistake(NamedTuple):
    """A word that was read wrong, and where it is."""

    dataset: str
    index: int
    word: Word


def report(
    reader: Reader,
    datasets: dict[str, Dataset],
    evaluations: dict[str, Evaluation],
    table: dict[str, Row],
    *,
    model: str,
    protocol: str,
) -> str:
    """The page as HTML: images are inlined as PNG, charts as SVG, all text is escaped.

    Args:
        reader: the model that read.
        datasets: by name; only the images that are shown are read from them again.
        evaluations: what it read of each.
        table: the rows to show, in order.
        model: how the model is called.
        protocol: what was compared, in words.
    """
    words = [word for evaluation in evaluations.values() for word in evaluation.words]
    confidences, correct = [word.confidence for word in words], [word.correct for word in words]
    confusions = count_confusions((word.truth, word.prediction) for word in words)
    mistakes = [
        Mistake(name, index, word)
        for name, evaluation in evaluations.items()
        for index, word in enumerate(evaluation.words)
        if not word.correct
    ]
    surest = sorted(mistakes, key=lambda m: -m.word.confidence)[:WORST]
    farthest = sorted(mistakes, key=lambda m: (-edit_distance(m.word.prediction, m.word.truth), -m.word.confidence))
    show = partial(_mistakes, reader, datasets)
    size, characters = count_parameters(reader.variables) / 1e6, len(reader.charset.characters)
    about = f"{size:.2f} M parameters, {characters} characters. Compared: {protocol}."
    sections = [
        f"<header><h1>{escape(model)}, word by word</h1><p>{escape(about)}</p></header>",
        _section("Accuracy", "Words read without an error, 1-NED and calibration error in per cent.", _table(table)),
        _section(
            "By length and by height",
            "Word accuracy in per cent with its 95 % interval; the number of words beneath.",
            '<div class="pair">'
            + _figure(accuracy_chart(_by_length(words), axis="characters of the true word"))
            + _figure(accuracy_chart(_by_height(words), axis="height of the image as given, pixels"))
            + "</div>",
        ),
        _section(
            "Confidence",
            "Accuracy of words of like confidence. Where it reaches the dashed line, confidence is the chance of being "
            "right; the red distance between the two, weighted by words, is the expected calibration error.",
            f'<div class="pair">{_figure(reliability_chart(reliability(confidences, correct)))}'
            f"{_confidence_table(reader, confidences, correct)}</div>",
        ),
        _section(
            "Characters",
            "From the alignment of every reading with the fewest edits; shares are of the character in the true words. "
            "Map: a row a true character, a column what was read in its place; stronger where more often.",
            f'<div class="pair">{_confusion_lists(confusions)}<figure class="{"large" if characters > 48 else ""}">'
            f"{heat_map(confusions.substitutions, confusions.occurrences, reader.charset.characters)}</figure></div>",
        ),
        _section("The surest errors", "Wrong, with the highest confidence.", show(surest)),
        _section("The farthest errors", "Wrong, with the most edits from the truth.", show(farthest[:WORST])),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(model)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n' + "\n".join(
        [*sections, "</body></html>\n"]
    )


def _section(title: str, note: str, body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{body}</section>'


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _table(table: dict[str, Row]) -> str:
    lines = [
        (
            escape(name),
            f"{row['count']:,}",
            f"{row['word_accuracy']:.2f}",
            f"{row['one_minus_ned']:.2f}",
            f"{row['confidence']:.3f}",
            f"{row['expected_calibration_error']:.2f}",
            f"{row['images_per_second']:,.0f}",
        )
        for name, row in table.items()
    ]
    head = ("dataset", "words", "accuracy", "1-NED", "confidence", "ECE", "images/s")
    return f'<div class="scroll">{_number_table(head, lines)}</div>'


def _number_table(head: Sequence[str], lines: Sequence[tuple]) -> str:
    """A table whose first column is text and whose others are numbers; its cells are HTML."""

    def cells(tag: str, line) -> str:
        return "".join(f"<{tag}>{cell}</{tag}>" for cell in line)

    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines or [("none",)])
    return f'<table class="numbers"><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table>'


def _confidence_table(reader: Reader, confidences: Sequence[float], correct: Sequence[bool]) -> str:
    lines = [
        ("word accuracy", f"{100 * np.mean(correct):.2f}"),
        ("mean confidence", f"{100 * np.mean(confidences):.2f}"),
        ("expected calibration error", f"{expected_calibration_error(confidences, correct):.2f}"),
        ("temperature of the model", f"{reader.temperature:.3f}"),
    ]
    return f"<div>{_number_table(('all words together', ''), lines)}</div>"


def _by_length(words: Sequence[Word]) -> list[Group]:
    longest = min(max((len(word.truth) for word in words), default=1), LONGEST)
    shortest = min((len(word.truth) for word in words), default=1)
    names = [str(n) if n < LONGEST else f"{n}+" for n in range(min(shortest, longest), longest + 1)]
    return _groups(words, names, lambda word: min(len(word.truth), longest) - min(shortest, longest))


def _by_height(words: Sequence[Word]) -> list[Group]:
    ends = HEIGHTS[1:]
    names = [f"{low}–{high - 1}" for low, high in zip(HEIGHTS, ends, strict=False)]
    names = [f"<{ends[0]}", *names[1:], f"{ends[-1]}+"]
    return _groups(words, names, lambda word: sum(word.height >= end for end in ends))


def _groups(words: Sequence[Word], names: Sequence[str], which: Callable[[Word], int]) -> list[Group]:
    counts, correct = Counter(map(which, words)), Counter(which(word) for word in words if word.correct)
    return [Group(name, counts[i], correct[i]) for i, name in enumerate(names)]


def _confusion_lists(confusions: Confusions) -> str:
    def glyph(character: str) -> str:
        return f"<b>{escape(character)}</b>"

    def share(count: int, character: str) -> str:
        return f"{100 * count / confusions.occurrences[character]:.1f} %"

    substitutions = [
        (f"{glyph(true)} → {glyph(read)}", count, share(count, true))
        for (true, read), count in confusions.substitutions.most_common(TOP)
    ]
    deletions = [(glyph(true), count, share(count, true)) for true, count in confusions.deletions.most_common(TOP)]
    insertions = [(glyph(read), count) for read, count in confusions.insertions.most_common(TOP)]
    tables = [
        _number_table(("read as another", "times", "share"), substitutions),
        _number_table(("not read", "times", "share"), deletions),
        _number_table(("read, not there", "times"), insertions),
    ]
    return f'<div class="lists">{"".join(tables)}</div>'


def _mistakes(reader: Reader, datasets: dict[str, Dataset], mistakes: Sequence[Mistake]) -> str:
    """Rows of wrong words: the image as given, as the model saw it, and rectified, where it has an STN for that."""
    if not mistakes:
        return "<p>None.</p>"
    stn = reader.config.model.stn
    rectifies = stn.kind != "none" and stn.placement == "image"
    rows = []
    for name, index, word in mistakes:
        sample = next(datasets[name].samples(index, stop=index + 1))
        fitted = reader.fit(sample.image)
        images = [_picture(_shrunk(sample.image)), _picture(fitted)]
        if rectifies:
            images.append(_picture(_rectified(reader, fitted)))
        cells = "".join(f"<td>{image}</td>" for image in images)
        rows.append(
            f'<tr>{cells}<td class="words">{_aligned(word)}</td><td class="number">{word.confidence:.3f}</td>'
            f'<td class="number">{edit_distance(word.prediction, word.truth)}</td>'
            f'<td class="source">{escape(name)}<br>{escape(sample.name.rpartition("/")[2])}<br>'
            f"{escape(word.label)}</td></tr>"
        )
    pictures = ["as given", "as the model sees it", "rectified"][: 3 if rectifies else 2]
    titles = dict.fromkeys(pictures, "picture")
    titles |= {"truth, reading": "words", "confidence": "number", "edits": "number", "dataset, image, label": "source"}
    head = "".join(f'<th class="{kind}">{title}</th>' for title, kind in titles.items())
    table = f'<table class="mistakes"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _aligned(word: Word) -> str:
    """Truth above reading, character under character, with what differs marked."""
    lines = ["", ""]
    for pair in align(word.truth, word.prediction):
        for i, character in enumerate(pair):
            shown = escape(character) or "·"
            lines[i] += shown if pair[0] == pair[1] else f"<mark>{shown}</mark>"
    return "<br>".join(f"<code>{line or '·'}</code>" for line in lines)


def _shrunk(grey: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w"]:
    if len(grey) <= TALLEST:
        return grey
    image = Image.fromarray(grey)
    image.thumbnail((8 * TALLEST, TALLEST))
    return np.asarray(image)


def _picture(grey: UInt8[np.ndarray, "H W"]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = "wide" if grey.shape[1] > grey.shape[0] else "upright"
    return f'<img class="{kind}" alt="" src="data:image/png;base64,{data}">'


def _rectified(reader: Reader, fitted: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    image = jax.device_get(_rectify(reader.variables, fitted[None], model=reader.model))[0, ..., 0]
    return np.clip(np.rint((image + 1) * 127.5), 0, 255).astype(np.uint8)


@partial(jax.jit, static_argnames="model")
def _rectify(variables, images, *, model: CRNN):
    return model.apply(variables, images, method="rectify")[0]
