"""Pieces of the page as HTML; arguments are escaped unless they are documented as HTML or SVG."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from crnn_jax.data.sample import Sample
from crnn_jax.evaluation import Word
from crnn_jax.report.confusion import align
from crnn_jax.report.place import Place


def section(title: str, note: str, body: str) -> str:
    """A part of the page under a title; `body` is HTML."""
    return f'<section><h2>{escape(title)}</h2><p class="note">{escape(note)}</p>{body}</section>'


def figure(svg: str) -> str:
    """A chart (SVG) that scrolls if the page is narrower."""
    return f"<figure>{svg}</figure>"


def number_table(head: Sequence[str], lines: Sequence[tuple]) -> str:
    """A table whose first column is text and whose others are numbers; its cells are HTML."""

    def cells(tag: str, line) -> str:
        return "".join(f"<{tag}>{cell}</{tag}>" for cell in line)

    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines or [("none",)])
    return f'<table class="numbers"><thead><tr>{cells("th", head)}</tr></thead><tbody>{body}</tbody></table>'


def aligned(word: Word) -> str:
    """Truth above reading, aligned character by character, with differences marked."""
    lines = ["", ""]
    for pair in align(word.truth, word.prediction):
        for i, character in enumerate(pair):
            shown = escape(character) or "·"
            lines[i] += shown if pair[0] == pair[1] else f"<mark>{shown}</mark>"
    return "<br>".join(f"<code>{line or '·'}</code>" for line in lines)


def source_cell(place: Place, sample: Sample) -> str:
    """A table cell with an image's dataset, name and label."""
    name = sample.name.rpartition("/")[2]
    return f'<td class="source">{escape(place.dataset)}<br>{escape(name)}<br>{escape(place.word.label)}</td>'


def picture(image: UInt8[np.ndarray, "H W *channels"], *, width: float | None = None) -> str:
    """An image (grey, RGB or RGBA) inlined as PNG, `width` CSS pixels wide; None leaves its size to the style sheet."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = "wide" if image.shape[1] > image.shape[0] else "upright"
    size = "" if width is None else f' width="{width:.0f}"'
    return f'<img class="{kind}" alt=""{size} src="data:image/png;base64,{data}">'
