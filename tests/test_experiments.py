"""read.py, evaluate.py and contact_sheet.py as a user runs them: output, exit codes, one line for bad input."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small import EXPERIMENTS, SMALL, load_script, noise_images, write_lmdb, write_tfrecords
from toy import toy_source, toy_words

import crnn_jax
from crnn_jax import evaluation
from crnn_jax.config import Config
from crnn_jax.data import rendered
from crnn_jax.metrics import normalise
from crnn_jax.training.checkpoint import Checkpoints, load_variables

ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(EXPERIMENTS.parent)}

read, evaluate = load_script("read"), load_script("evaluate")


@pytest.fixture(scope="session")
def workdir(model, tmp_path_factory):
    """A run's folder whose checkpoint has the weights of `model`."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    variables = load_variables(model)[1]
    checkpoints = Checkpoints(folder, Config(model=SMALL))
    checkpoints.save(
        10, {"ema_params": variables["params"], "batch_stats": variables["batch_stats"]}, {"word_accuracy": 1.0}
    )
    checkpoints.close()
    return folder


@pytest.fixture(scope="session")
def words(model, tmp_path_factory):
    """A folder of twelve images, and what the model reads in each: {name: text}, every text with a letter."""
    folder = tmp_path_factory.mktemp("words")
    images = noise_images(40)
    texts = [reading.text for reading in crnn_jax.load(model).read(images)]
    chosen = [i for i, text in enumerate(texts) if text.swapcase() != text][:12]
    names = [f"{order:02}.png" for order in np.random.default_rng(0).permutation(12)]  # not in the order of writing
    for i, name in zip(chosen, names, strict=True):
        Image.fromarray(images[i]).save(folder / name)
    return folder, {name: texts[i] for i, name in sorted(zip(chosen, names, strict=True), key=lambda pair: pair[1])}


@pytest.fixture
def bad(words, tmp_path):
    """A folder of two files that are no images and one that is."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "notes.png").write_text("a text")
    Image.fromarray(noise_images(1)[0]).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-300])
    return folder


def run(script, capsys, *arguments):
    """Calls a script's main: (exit code, lines of stdout, lines of stderr)."""
    code = script.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def start(script: str, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, EXPERIMENTS / f"{script}.py", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# read.py


def test_read_as_a_process(workdir, words, bad):
    """With a run's checkpoint: only the lines of the images on stdout, only the errors on stderr."""
    folder, texts = words
    process = start("read", folder / "03.png", bad, "missing.png", folder / "01.png", "--model", workdir)
    out, err = process.communicate(timeout=300)
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [f"{folder}/03.png", f"{bad}/whole.jpg", f"{folder}/01.png"]
    assert [rows[0][1], rows[2][1]] == [texts["03.png"], texts["01.png"]]
    assert all(0 < float(row[2]) <= 1 and len(row) == 3 for row in rows)
    first, second, third = err.splitlines()
    assert first.startswith(f"read.py: {bad}/cut.jpg: does not decode: ")
    assert second == f"read.py: {bad}/notes.png: not an image of a known format"
    assert third == "read.py: missing.png: No such file or directory"
    assert process.returncode == 1


def test_read_into_a_pipe_that_is_closed(model, words):
    with start("read", words[0], "--model", model) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_folder_is_read_in_the_order_of_names(model, words, capsys):
    folder, texts = words
    code, out, err = run(read, capsys, folder, "--model", model)
    assert (code, err) == (0, [])
    rows = [line.split("\t") for line in out]
    assert [(Path(path).name, text) for path, text, _ in rows] == list(texts.items())
    expected = [reading.confidence for reading in crnn_jax.load(model).read([folder / name for name in texts])]
    assert [float(row[2]) for row in rows] == pytest.approx(expected, abs=2e-4)


def test_images_of_odd_sizes_are_read(model, tmp_path, capsys):
    paths = [tmp_path / f"{width}x{height}.png" for width, height in ((1, 1), (4000, 20), (1, 4000))]
    for path in paths:
        width, height = map(int, path.stem.split("x"))
        Image.new("L", (width, height), 90).save(path)
    code, out, err = run(read, capsys, *paths, "--model", model)
    assert (code, len(out), err) == (0, 3, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}"], r"{tmp}: the folder has no images (.avif, .bmp, .gif, .jfif, "),
        (["{words}", "--model", "{tmp}"], "{tmp} holds no checkpoint"),
        (["{words}", "--model", "none"], "none is neither a folder nor a bundled model ("),
        (["{words}/none.png", "--model", "{model}"], "{words}/none.png: No such file or directory"),
        (["{words}", "--lexicon", "{tmp}/none"], "{tmp}/none: No such file or directory; a lexicon is a file of words"),
    ],
)
def test_read_says_in_one_line_what_is_wrong(model, words, tmp_path, capsys, arguments, message):
    names = {"tmp": tmp_path, "words": words[0], "model": model}
    code, out, err = run(read, capsys, *(argument.format(**names) for argument in arguments))
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith("read.py: " + message.format(**names))


# evaluate.py


def write_labels(folder: Path, words, alter=lambda index, text: text) -> Path:
    """A dataset of the images of `words`, each labelled with its reading, altered."""
    images, texts = words
    folder.mkdir()
    lines = [f"{images / name}\t{alter(i, text)}\n" for i, (name, text) in enumerate(texts.items())]
    (folder / "labels.tsv").write_text("".join(lines))
    return folder


def altered(index: int, text: str) -> str:
    """Labels from twelve readings: 0 to 2 in another case, 3 with a mark, 4 to 6 with an extra character."""
    if index < 3:
        return text.swapcase()
    return text + ("!" if index == 3 else "q" if index < 7 else "")


@pytest.mark.parametrize(
    ("switches", "right"),
    [([], 9), (["--cased"], 6), (["--punctuation"], 8), (["--cased", "--punctuation"], 5)],
)
def test_accuracy_is_the_share_of_right_readings(model, words, tmp_path, capsys, switches, right):
    folder = write_labels(tmp_path / "altered", words, altered)
    table = tmp_path / "table.json"
    code, out, err = run(evaluate, capsys, "--model", model, "--data", folder, "--json", table, *switches)
    assert (code, err) == (0, [])
    row = json.loads(table.read_text())["datasets"]["altered"]
    measured = {"count", "word_accuracy", "one_minus_ned", "character_error_rate", "confidence"}
    assert set(row) == measured | {"expected_calibration_error", "images_per_second"}
    assert row["count"] == 12
    assert row["word_accuracy"] == pytest.approx(100 * right / 12)
    # An extra character costs 1 / (length + 1) of the longer; all else is right without the switches.
    if not switches:
        lengths = [len(normalise(text)) for text in list(words[1].values())[4:7]]
        assert row["one_minus_ned"] == pytest.approx(100 * (12 - sum(1 / (n + 1) for n in lengths)) / 12)
    expected = [reading.confidence for reading in crnn_jax.load(model).read(sorted(words[0].iterdir()))]
    assert row["confidence"] == pytest.approx(np.mean(expected), rel=1e-3)
    assert row["images_per_second"] > 0
    header, line = out
    assert header.split() == ["dataset", "words", "accuracy", "1-NED", "CER", "confidence", "ECE", "images/s"]
    assert line.split()[:3] == ["altered", "12", f"{100 * right / 12:.2f}"]


@pytest.mark.parametrize("kind", ["lmdb", "tfrecord"])
def test_every_kind_of_dataset_gives_the_row_of_the_folder(model, words, tmp_path, capsys, kind):
    folder = write_labels(tmp_path / "folder", words, altered)
    lines = [line.split("\t") for line in (folder / "labels.tsv").read_text().splitlines()]
    samples = [(Path(path).read_bytes(), label) for path, label in lines]
    if kind == "lmdb":
        other = write_lmdb(tmp_path / "other", samples)
    else:
        other = write_tfrecords(tmp_path / "other.tfrecord-00000-of-00001", samples)
    table = tmp_path / "table.json"
    code, out, _ = run(evaluate, capsys, "--model", model, "--data", folder, other, "--json", table)
    assert code == 0
    rows = json.loads(table.read_text())["datasets"]
    assert list(rows) == ["folder", other.name]
    for row in rows.values():
        del row["images_per_second"]
    assert rows["folder"] == rows[other.name]
    total = out[-1].split()
    assert total[:4] == ["all", "words", "24", "75.00"]
    # The same words twice: the error over both is that of each.
    assert float(total[-2]) == pytest.approx(rows["folder"]["expected_calibration_error"], abs=0.01)


def test_datasets_of_one_name_keep_their_rows(model, words, tmp_path, capsys):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write_labels(tmp_path / place / "same", words)
    table = tmp_path / "table.json"
    paths = [tmp_path / "a" / "same", tmp_path / "b" / "same"]
    run(evaluate, capsys, "--model", model, "--data", *paths, "--json", table)
    assert list(json.loads(table.read_text())["datasets"]) == ["same", str(paths[1])]
    run(evaluate, capsys, "--model", model, "--data", *paths, "--part", "rest", "--json", table)
    assert list(json.loads(table.read_text())["datasets"]) == ["same, rest", f"{paths[1]}, rest"]


def test_evaluate_as_a_process(workdir, words, tmp_path):
    folder = write_labels(tmp_path / "own", words)
    process = start("evaluate", "--model", workdir, "--data", folder, "--json", tmp_path / "table.json")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[1].split()[:4] == ["own", "12", "100.00", "100.00"]
    assert json.loads((tmp_path / "table.json").read_text())["datasets"]["own"]["word_accuracy"] == 100.0


def test_held_out_words_are_a_dataset_too(model, capsys, monkeypatch):
    seen = []

    def words(key, source, **options):
        seen.append(options)
        return toy_words(key, source, **options)

    monkeypatch.setattr(evaluation, "RenderedWords", partial(rendered.RenderedWords, count=100))
    monkeypatch.setattr(rendered, "load_source", toy_source)
    monkeypatch.setattr(rendered, "synth_batch", words)
    code, out, err = run(evaluate, capsys, "--model", model, "--data", "rendered")
    assert (code, err) == (0, [])
    name, count, accuracy, *_ = out[1].split()
    assert (name, count) == ("rendered", "100")
    assert float(accuracy) < 5  # random weights read nonsense
    assert seen[0]["held_out"] and seen[0]["config"].model == SMALL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/none"], "{tmp}/none: no such file or folder"),
        (["{tmp}/empty"], "{tmp}/empty: the folder is empty"),
        (["{tmp}/gone"], "gone: left out: 1 missing image; the first: {tmp}/gone/none.png: No such file or directory"),
        (["{tmp}/tab"], "{tmp}/tab/labels.tsv, line 1: no tab between image and label: 'none.png word'"),
        (
            ["{tmp}/text"],
            "text: left out: 1 not an image of a known format; the first: {tmp}/text/notes.png: not an image of a "
            "known format",
        ),
        (["{tmp}/good", "--model", "{tmp}/good"], "{tmp}/good holds no checkpoint"),
        (["{tmp}/good", "{tmp}/empty"], "{tmp}/empty: the folder is empty"),
        (["{tmp}/good", "{tmp}/good/"], "{tmp}/good/: given twice"),
        (["rendered", "{tmp}/good", "rendered"], "rendered: given twice"),
        (
            ["{tmp}/good", "--lexicon", "{tmp}/none"],
            "{tmp}/none: No such file or directory; a lexicon is a file of words, or 'english'",
        ),
    ],
)
def test_evaluate_says_in_one_line_what_is_wrong(model, words, bad, tmp_path, capsys, arguments, message):
    write_labels(tmp_path / "good", words)
    (tmp_path / "empty").mkdir()
    for name, line in (("gone", "none.png\tword"), ("tab", "none.png word"), ("text", "notes.png\tword")):
        write_labels(tmp_path / name, words)
        (tmp_path / name / "labels.tsv").write_text(f"{line}\n")
    shutil.copy(bad / "notes.png", tmp_path / "text")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    code, out, err = run(evaluate, capsys, "--model", model, "--data", *arguments)
    assert (code, out) == (1, [])
    assert err == ["evaluate.py: " + message.format(tmp=tmp_path)]


@pytest.mark.parametrize("switch", ["--json", "--html", "--words"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(model, words, tmp_path, capsys, switch):
    folder = write_labels(tmp_path / "good", words)
    target = tmp_path / "none" / "table"
    told = run(evaluate, capsys, "--model", model, "--data", folder, switch, target)
    assert told == (1, [], [f"evaluate.py: [Errno 2] No such file or directory: '{target}'"])


def test_a_sheet_without_columns_is_refused_in_one_line():
    process = start("contact_sheet", "--columns", "0")
    assert process.communicate() == ("", "contact_sheet.py: --rows, --columns and --scale must be at least 1\n")
    assert process.returncode == 1
