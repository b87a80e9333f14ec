"""evaluate.py --html: a self-contained page that shows what is there, and escapes it."""

import base64
import dataclasses
import io
import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from small import SMALL, labelled_noise, load_script, save_small

from crnn_jax.calibration import reliability
from crnn_jax.config import StnConfig
from crnn_jax.evaluation import Word
from crnn_jax.metrics import edit_distance
from crnn_jax.report.charts import Group, accuracy_chart, heat_map, reliability_chart
from crnn_jax.report.confusion import align, count_confusions
from crnn_jax.report.place import Place
from crnn_jax.report.transformer import by_deviation, by_outside, choose
from crnn_jax.stn import Diagnosis
from crnn_jax.training.checkpoint import load_variables, save_inference

evaluate = load_script("evaluate")
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """A page taken apart; fails on a tag that is not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], Counter(), [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(model, data, tmp_path, *arguments) -> tuple[str, Page]:
    file = tmp_path / "page.html"
    command = ["--model", model, "--data", data, "--html", file, *arguments]
    assert evaluate.main([str(argument) for argument in command]) == 0
    text = file.read_text(encoding="utf-8")
    return text, Page(text)


def pictures(page: Page) -> list[np.ndarray]:
    sources = [value.removeprefix("data:image/png;base64,") for name, value in page.attributes if name == "src"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def test_the_page_shows_what_is_wrong_and_needs_no_other(tmp_path):
    model = save_small(tmp_path / "small")
    samples = labelled_noise(tmp_path / "data", model, 20, wrong=4)
    text, page = page_of(model, tmp_path / "data", tmp_path)
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|<script|https?://', text)
    # Five words are wrong, in both lists, each as it was given and as the model sees it.
    images = pictures(page)
    assert len(images) == 5 * 2 * 2
    assert {image.shape for image in images[1::2]} == {(32, 100)}
    given = {np.asarray(Image.open(tmp_path / "data" / name)).tobytes() for name, _ in samples[::4]}
    assert {image.tobytes() for image in images[::2]} == given
    shown = {data for data in page.text if data in {name for name, _ in samples}}
    assert shown == {name for name, _ in samples[::4]}
    assert "75.00" in page.text and page.tags["svg"] == 4
    assert page.text.count("rectified") == 0


@pytest.mark.parametrize("placement", ["image", "block1"])
def test_the_page_shows_what_an_stn_does(tmp_path, capsys, placement):
    stn = StnConfig(kind="affine", features=(4, 4), bound=0.3, placement=placement)
    model = save_small(tmp_path / "stn", dataclasses.replace(SMALL, stn=stn))
    labelled_noise(tmp_path / "data", model, 12, wrong=4)
    _, page = page_of(model, tmp_path / "data", tmp_path)
    images, on_image = pictures(page), placement == "image"
    # Three of twelve words are wrong and nine are right: each is shown, and the wrong ones in two lists of errors.
    drawn, lists = images[: 12 * (1 + on_image)], images[12 * (1 + on_image) :]
    assert len(lists) == 3 * 2 * (2 + on_image) and page.text.count("rectified") == (2 if on_image else 0)
    if on_image:
        for given, rectified in zip(lists[1::3], lists[2::3], strict=True):
            assert given.shape == rectified.shape == (32, 100) and not np.array_equal(given, rectified)
        assert {image.shape for image in drawn[1::2]} == {(5 * 32, 5 * 100)}
        drawn = drawn[::2]
    assert all(image.ndim == 3 and min(image.shape[:2]) > 5 * 32 for image in drawn)
    assert "What the transformer does" in page.text and page.tags["svg"] == 6
    assert [t for t in page.text if t.endswith("identity") or t in ("in the middle", "nearest to it")][-3:] == [
        "farthest from the identity",
        "in the middle",
        "nearest to it",
    ]
    assert ("what it returns" in page.text) == on_image
    assert "collapsed" not in "".join(page.text) + capsys.readouterr().err


def test_a_collapsed_stn_is_said_in_the_page_and_on_stderr(tmp_path, capsys):
    model = save_small(tmp_path / "good", dataclasses.replace(SMALL, stn=StnConfig(kind="affine", features=(4, 4))))
    labelled_noise(tmp_path / "data", model, 4, wrong=2)
    config, variables = load_variables(model)
    last = variables["params"]["stn"]["localisation"]["last"]
    last["kernel"] = 0 * last["kernel"]
    last["bias"] = np.float32([0.01, 0, 0.9, 0, 0.01, 0])
    save_inference(tmp_path / "collapsed", config, variables, {})
    _, page = page_of(tmp_path / "collapsed", tmp_path / "data", tmp_path)
    warnings = [text for text in page.text if text.startswith(("It has", "It does"))]
    assert [warning[:18] for warning in warnings] == ["It has collapsed: ", "It does the same t"]
    err = capsys.readouterr().err
    assert err.startswith(f"evaluate.py: the spatial transformer of {tmp_path / 'collapsed'} has collapsed: ")
    assert err.count("\n") == 1 and warnings[0].removesuffix(".").partition(": ")[2] in err


def test_words_that_show_the_range_are_chosen():
    def place(i, correct):
        word = Word("a", "a", "a", "a" if correct else "b", 0.5, 32, "a.png", Diagnosis(i / 20, 0.0, 1.0), i)
        return Place("data", word)

    places = [place(i, i % 2 == 0) for i in range(19)]
    chosen = {kind: [p.word.index for p in found] for kind, found in choose(places).items()}
    assert list(chosen.values()) == [[18, 16, 14, 17, 15, 13], [12, 10, 8, 11, 9, 7], [4, 2, 0, 5, 3, 1]]
    assert [len(found) for found in choose(places[:5]).values()] == [5]
    assert choose([]) == {} and [p.word.index for p in choose(places[:1])["farthest from the identity"]] == [0]


def test_groups_by_what_the_transformer_does():
    def words(field, values):
        diagnoses = [Diagnosis(0.0, 0.0, 1.0)._replace(**{field: value}) for value in values]
        return [Word("a", "a", "a", "a", 0.5, 32, "a.png", diagnosis) for diagnosis in diagnoses]

    groups = by_deviation(words("deviation", [0.11, 0.19, 0.31, 0.49, *[0.47] * 95, 2.0]))
    assert [(group.name, group.count) for group in groups][:2] == [("0.1–0.15", 1), ("0.15–0.2", 1)]
    assert sum(group.count for group in groups) == 100 and groups[-1] == ("0.5+", 1, 1)
    assert [group.count for group in by_deviation(words("deviation", [0.0] * 3))] == [3, 0]
    assert sum(group.count for group in by_deviation([])) == 0
    groups = by_outside(words("outside", [0, 0.005, 0.01, 0.3, 0.5, 1.0]))
    assert [group.count for group in groups] == [2, 1, 0, 0, 0, 1, 2]
    assert (groups[0].name, groups[1].name, groups[-1].name) == ("<1", "1–2", "50+")


def test_names_and_labels_are_escaped(tmp_path):
    model = save_small(tmp_path / "<i>model")
    data = tmp_path / "<b>data&"
    labelled_noise(data, model, 12, wrong=4)
    lines = (data / "labels.tsv").read_text().splitlines()
    (data / "labels.tsv").write_text("\n".join([*lines, "000.png\t<script>alert('&')</script>"]))
    text, page = page_of(model, data, tmp_path, "--cased", "--punctuation")
    assert page.tags["script"] == page.tags["i"] == 0
    assert "<script>alert('&')</script>" in page.text and "<b>data&" in page.text
    assert page.text.count("<") > 0 and "letters, digits, punctuation" in text


@pytest.mark.parametrize("labels", [["", "", ""], None])
def test_pages_of_nothing_right_and_of_nothing_wrong(tmp_path, labels):
    model = save_small(tmp_path / "small")
    samples = labelled_noise(tmp_path / "data", model, 3, wrong=100)
    labels = labels or [samples[0][1].removesuffix("q"), samples[1][1], samples[2][1]]
    lines = [f"{name}\t{label}\n" for (name, _), label in zip(samples, labels, strict=True)]
    (tmp_path / "data" / "labels.tsv").write_text("".join(lines))
    _, page = page_of(model, tmp_path / "data", tmp_path)
    assert page.text.count("None.") == (0 if labels[0] == "" else 2)


def test_a_page_that_cannot_be_written_is_said_in_one_line(tmp_path, capsys):
    model = save_small(tmp_path / "small")
    labelled_noise(tmp_path / "data", model, 3, wrong=2)
    target = str(tmp_path / "none" / "page.html")
    assert evaluate.main(["--model", str(model), "--data", str(tmp_path / "data"), "--html", target]) == 1
    assert capsys.readouterr().err == f"evaluate.py: [Errno 2] No such file or directory: '{target}'\n"


@pytest.mark.parametrize(
    ("truth", "prediction", "pairs"),
    [
        ("", "", []),
        ("abc", "", [("a", ""), ("b", ""), ("c", "")]),
        ("", "ab", [("", "a"), ("", "b")]),
        ("hello", "helo", [("h", "h"), ("e", "e"), ("l", ""), ("l", "l"), ("o", "o")]),
        ("cat", "cut", [("c", "c"), ("a", "u"), ("t", "t")]),
        ("ab", "xab", [("", "x"), ("a", "a"), ("b", "b")]),
    ],
)
def test_alignments(truth, prediction, pairs):
    assert align(truth, prediction) == pairs


def test_an_alignment_has_the_fewest_edits_and_loses_nothing():
    rng = np.random.default_rng(0)
    for _ in range(300):
        truth, prediction = ("".join(rng.choice(list("abc"), rng.integers(0, 8))) for _ in range(2))
        pairs = align(truth, prediction)
        assert ("".join(a for a, _ in pairs), "".join(b for _, b in pairs)) == (truth, prediction)
        assert sum(a != b for a, b in pairs) == edit_distance(truth, prediction)


def test_confusions_are_counted():
    confusions = count_confusions([("loot", "l0ot"), ("oo", "o0"), ("abc", "bc"), ("x", "xy"), ("same", "same")])
    assert confusions.substitutions == {("o", "0"): 2}
    assert (confusions.deletions, confusions.insertions) == ({"a": 1}, {"y": 1})
    assert confusions.occurrences["o"] == 4 and confusions.occurrences["a"] == 2 and confusions.occurrences["y"] == 0


def test_charts_are_well_formed_and_draw_their_numbers():
    chart = ElementTree.fromstring(
        accuracy_chart([Group("<5", 10, 5), Group("6&", 0, 0), Group("7", 4, 4)], axis="<x>")
    )
    [middle, top] = chart.iter("circle")
    grid = [float(line.get("y1")) for line in chart.iter("line") if line.get("class") == "grid"]
    assert float(middle.get("cy")) == pytest.approx((grid[0] + grid[4]) / 2)  # a half, between 0 and 100 per cent
    assert float(top.get("cy")) == pytest.approx(grid[4])
    assert {"<5", "6&", "50", "100", "<x>"} <= {text.text for text in chart.iter("text")}

    chart = ElementTree.fromstring(reliability_chart(reliability([0.5, 0.5, 0.95], [True, False, True])))
    gaps = [float(bar.get("height")) for bar in chart.iter("rect") if bar.get("class") == "gap"]
    assert gaps == pytest.approx([0.0, 0.05 * (grid[0] - grid[4])], abs=0.06)

    chart = ElementTree.fromstring(heat_map(Counter({("<", "&"): 3, ("é", "<"): 1}), Counter("<<<<<<é"), "&<"))
    cells = {cell.find("title").text: cell for cell in chart.iter("rect") if cell.get("class") == "cell"}
    assert set(cells) == {"< read as &: 3 times, 50.0 % of all <", "é read as <: 1 times, 100.0 % of all é"}
    opacities = [float(cell.get("fill-opacity")) for cell in cells.values()]
    assert opacities[0] == 1.0 > opacities[1] > 0.1
