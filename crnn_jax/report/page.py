"""The page of evaluate.py --html: what a model reads wrong, in pictures. One self-contained file."""

from collections.abc import Sequence
from functools import partial
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from crnn_jax.calibration import expected_calibration_error, reliability
from crnn_jax.data.sample import Dataset
from crnn_jax.evaluation import Evaluation, Row, Word
from crnn_jax.metrics import edit_distance
from crnn_jax.model import count_parameters
from crnn_jax.reader import Reader
from crnn_jax.report.charts import Group, accuracy_chart, count_groups, heat_map, reliability_chart
from crnn_jax.report.confusion import Confusions, count_confusions
from crnn_jax.report.element import aligned, figure, number_table, picture, section, source_cell
from crnn_jax.report.place import Place, places
from crnn_jax.report.style import STYLE
from crnn_jax.report.transformer import transformer_section

WORST = 24  # words in each list
TOP = 12  # lines of each list of characters
LONGEST = 15  # characters: words of this length or more are one group
HEIGHTS = (0, 12, 16, 20, 24, 32, 40, 48, 64)  # pixels: the lower ends of the groups
TALLEST = 128  # pixels: original images are shown no taller


def report(
    reader: Reader,
    datasets: dict[str, Dataset],
    evaluations: dict[str, Evaluation],
    table: dict[str, Row],
    *,
    model: str,
    protocol: str,
) -> str:
    """The page as HTML: images are inlined as PNG and charts as SVG, and all text is escaped.

    Args:
        reader: the model.
        datasets: by name; only the images that are shown are read from them again.
        evaluations: what it read in each.
        table: the rows to show, in order.
        model: the model's name.
        protocol: what was compared, in words.
    """
    words = [word for evaluation in evaluations.values() for word in evaluation.words]
    confidences, correct = [word.confidence for word in words], [word.correct for word in words]
    confusions = count_confusions((word.truth, word.prediction) for word in words)
    mistakes = [place for place in places(evaluations) if not place.word.correct]
    surest = sorted(mistakes, key=lambda m: -m.word.confidence)[:WORST]
    farthest = sorted(mistakes, key=lambda m: (-edit_distance(m.word.prediction, m.word.truth), -m.word.confidence))
    show = partial(_mistakes, reader, datasets)
    size, characters = count_parameters(reader.variables) / 1e6, len(reader.charset.characters)
    about = f"{size:.2f} M parameters, {characters} characters. Compared: {protocol}."
    sections = [
        f"<header><h1>{escape(model)}, word by word</h1><p>{escape(about)}</p></header>",
        section(
            "Accuracy",
            "Words read without an error, 1-NED, character and calibration error in per cent.",
            _table(table),
        ),
        section(
            "By length and by height",
            "Word accuracy in per cent with its 95 % interval, and below it the number of words.",
            '<div class="pair">'
            + figure(accuracy_chart(_by_length(words), axis="characters of the true word"))
            + figure(accuracy_chart(_by_height(words), axis="height of the image as given, pixels"))
            + "</div>",
        ),
        section(
            "Confidence",
            "Accuracy of words of similar confidence. On the dashed line, confidence is the chance of being right; the "
            "red gap between accuracy and confidence, weighted by words, is the expected calibration error.",
            f'<div class="pair">{figure(reliability_chart(reliability(confidences, correct)))}'
            f"{_confidence_table(reader, confidences, correct)}</div>",
        ),
        section(
            "Characters",
            "Each reading is aligned with the fewest edits; shares are of the character in the true words. "
            "Map: each row is a true character, each column what was read in its place; stronger means more often.",
            f'<div class="pair">{_confusion_lists(confusions)}<figure class="{"large" if characters > 48 else ""}">'
            f"{heat_map(confusions.substitutions, confusions.occurrences, reader.charset.characters)}</figure></div>",
        ),
        *([transformer_section(reader, datasets, evaluations)] if reader.has_stn else []),
        section("The most confident errors", "Wrong, with the highest confidence.", show(surest)),
        section("The largest errors", "Wrong, with the most edits from the truth.", show(farthest[:WORST])),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(model)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n' + "\n".join(
        [*sections, "</body></html>\n"]
    )


def _table(table: dict[str, Row]) -> str:
    lines = [
        (
            escape(name),
            f"{row['count']:,}",
            f"{row['word_accuracy']:.2f}",
            f"{row['one_minus_ned']:.2f}",
            f"{row['character_error_rate']:.2f}",
            f"{row['confidence']:.3f}",
            f"{row['expected_calibration_error']:.2f}",
            f"{row['images_per_second']:,.0f}",
        )
        for name, row in table.items()
    ]
    head = ("dataset", "words", "accuracy", "1-NED", "CER", "confidence", "ECE", "images/s")
    return f'<div class="scroll">{number_table(head, lines)}</div>'


def _confidence_table(reader: Reader, confidences: Sequence[float], correct: Sequence[bool]) -> str:
    lines = [
        ("word accuracy", f"{100 * np.mean(correct):.2f}"),
        ("mean confidence", f"{100 * np.mean(confidences):.2f}"),
        ("expected calibration error", f"{expected_calibration_error(confidences, correct):.2f}"),
        ("temperature of the model", f"{reader.temperature:.3f}"),
        ("temperature with a lexicon", f"{reader.lexicon_temperature:.3f}"),
    ]
    return f"<div>{number_table(('all words together', ''), lines)}</div>"


def _by_length(words: Sequence[Word]) -> list[Group]:
    longest = min(max((len(word.truth) for word in words), default=1), LONGEST)
    shortest = min((len(word.truth) for word in words), default=1)
    names = [str(n) if n < LONGEST else f"{n}+" for n in range(min(shortest, longest), longest + 1)]
    return count_groups(words, names, lambda word: min(len(word.truth), longest) - min(shortest, longest))


def _by_height(words: Sequence[Word]) -> list[Group]:
    ends = HEIGHTS[1:]
    names = [f"{low}–{high - 1}" for low, high in zip(HEIGHTS, ends, strict=False)]
    names = [f"<{ends[0]}", *names[1:], f"{ends[-1]}+"]
    return count_groups(words, names, lambda word: sum(word.height >= end for end in ends))


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
        number_table(("read as another", "times", "share"), substitutions),
        number_table(("not read", "times", "share"), deletions),
        number_table(("read, but not there", "times"), insertions),
    ]
    return f'<div class="lists">{"".join(tables)}</div>'


def _mistakes(reader: Reader, datasets: dict[str, Dataset], mistakes: Sequence[Place]) -> str:
    """Rows of wrong words: the image as given, as the model saw it and, if its STN works on images, rectified."""
    if not mistakes:
        return "<p>None.</p>"
    stn = reader.config.model.stn
    rectifies = stn.kind != "none" and stn.placement == "image"
    rows = []
    for place in mistakes:
        word, sample = place.word, place.sample(datasets)
        fitted = reader.fit(sample.image)
        images = [picture(_shrunk(sample.image)), picture(fitted)]
        if rectifies:
            images.append(picture(reader.transform([fitted])[0].image))
        cells = "".join(f"<td>{image}</td>" for image in images)
        rows.append(
            f'<tr>{cells}<td class="words">{aligned(word)}</td><td class="number">{word.confidence:.3f}</td>'
            f'<td class="number">{edit_distance(word.prediction, word.truth)}</td>'
            f"{source_cell(place, sample)}</tr>"
        )
    pictures = ["as given", "as the model sees it", "rectified"][: 3 if rectifies else 2]
    titles = dict.fromkeys(pictures, "picture")
    titles |= {"truth, reading": "words", "confidence": "number", "edits": "number", "dataset, image, label": "source"}
    head = "".join(f'<th class="{kind}">{title}</th>' for title, kind in titles.items())
    table = f'<table class="mistakes"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _shrunk(grey: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w"]:
    if len(grey) <= TALLEST:
        return grey
    image = Image.fromarray(grey)
    image.thumbnail((8 * TALLEST, TALLEST))
    return np.asarray(image)
