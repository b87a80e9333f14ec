"""experiments/results.py: it measures what evaluate.py reports, on one CPU, beside others' published numbers."""

import json
import os
import shutil
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small import EXPERIMENTS, labelled_noise, load_script, noise_images, save_small

import crnn_jax
from crnn_jax.beam import beam_search
from crnn_jax.charset import Charset
from crnn_jax.evaluation import Chunk, Given, read_words
from crnn_jax.lexicon import core
from crnn_jax.reader import Reader, Reading

results, evaluate = load_script("results"), load_script("evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, `first` and `second`, and twelve words, of which the models read eight as they are labelled."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("first", "second"):
        save_small(folder / name)
    (folder / "first" / "card.json").write_text('{"images_seen": 5760000}')
    labelled_noise(folder / "data", folder / "first", 12, wrong=3)
    return folder


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_a_model_with_the_numbers_of_evaluate(folder, tmp_path, capsys):
    models, data = [str(folder / name) for name in ("first", "second")], str(folder / "data")
    again = str(shutil.copytree(data, tmp_path / "data"))
    table = tmp_path / "results.json"
    assert results.main(["--model", *models, "--data", data, again, "--json", str(table)]) == 0
    head, _, first, second, *rest = map(cells, capsys.readouterr().out.splitlines())
    assert rest[1][0].endswith("given the number of words alone: 39.1 to 86.2, 39.1 to 86.2.")
    assert head[3:6] == ["data (12)", f"{again} (12)", "ECE"]
    assert head[6] == ("images/s, one CPU thread" if results.cores() == 1 else f"images/s, {results.cores()} CPUs")
    assert first[0] == f"`{models[0]}`" and (first[2], second[2]) == ("5.8 M", "")
    assert first[3] == first[4] == second[3] and first[3].startswith("66.7 / ")

    assert evaluate.main(["--model", models[0], "--data", data, "--json", str(tmp_path / "table.json")]) == 0
    row = json.loads((tmp_path / "table.json").read_text())["datasets"]["data"]
    measured = json.loads(table.read_text())["models"][models[0]]
    assert set(measured["datasets"]) == {"data", again} and measured["all_words"]["count"] == 24
    for name in ("word_accuracy", "one_minus_ned", "character_error_rate", "confidence", "expected_calibration_error"):
        assert measured["datasets"]["data"][name] == pytest.approx(row[name], rel=1e-3)
        assert measured["all_words"][name] == pytest.approx(row[name], rel=1e-3)


def test_words_of_a_lexicon_are_read(folder, tmp_path, capsys):
    """Labels that the model finds likely, but not the likeliest: with them as a lexicon, most are read."""
    reader, images, words = crnn_jax.load(folder / "first"), noise_images(12), []
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "labels.tsv").open("w") as labels:
        for i, logits in enumerate(reader.logits([reader.fit(image) for image in images])):
            beams = beam_search(jnp.asarray(logits))
            texts = [reader.charset.decode(ids) for ids in beams.ids]
            label = next(text for text in texts if core(text) not in ("", core(texts[0])))
            Image.fromarray(images[i]).save(tmp_path / "data" / f"{i}.png")
            labels.write(f"{i}.png\t{label}\n")
            words.append(core(label))
    (tmp_path / "words.txt").write_text("\n".join(words))
    accuracy = {}
    for name, options in {"without": [], "with": ["--lexicon", str(tmp_path / "words.txt")]}.items():
        table = tmp_path / f"{name}.json"
        arguments = ["--model", str(folder / "first"), "--data", str(tmp_path / "data"), "--json", str(table), *options]
        assert results.main(arguments) == 0
        accuracy[name] = json.loads(table.read_text())["models"][str(folder / "first")]["all_words"]["word_accuracy"]
        capsys.readouterr()
        assert evaluate.main(arguments) == 0
        rows = capsys.readouterr().out.splitlines()
        assert [row.split("  ")[0] for row in rows[2:]] == (["in the lexicon"] if options else [])
        told = json.loads(table.read_text())
        assert told["datasets"]["data"]["word_accuracy"] == accuracy[name]
        assert list(told["totals"]) == (["in the lexicon"] if options else [])
        assert (told["compared"]["lexicon"], told["compared"].get("bonus")) == (
            (options[1], 0.8) if options else (None, None)
        )
    assert accuracy["without"] < 20 and accuracy["with"] > 60


def test_compilation_counts_for_no_time():
    """Nor for the last batches of a dataset, which may have a size of their own; and nothing else is read twice."""

    class Slow(Reader):
        def __init__(self):
            self.compiled, self.read, self.charset = set(), [], Charset.of("36")

        def read_fitted(self, images, lexicon):
            self.read.append(len(images))
            shapes = {8: {8}, 5: {8}, 33: {1, 32}, 40: {8, 32}}[len(images)]  # of the batches, filled up
            if shapes - self.compiled:
                self.compiled |= shapes
                time.sleep(0.2)
            return [Reading("a", 1.0)] * len(images)

    reader, image = Slow(), np.zeros((32, 100), np.uint8)
    chunks = [Chunk([Given(i, [[image]], "a", "a.png", 32) for i in range(size)], 0.0) for size in (8, 5, 33, 40)]
    evaluation = read_words(reader, chunks)
    assert len(evaluation.words) == 86 and evaluation.seconds < 0.2
    assert reader.read == [8, 8, 5, 33, 33, 40]


def test_peers_are_marked_as_of_other_splits():
    note, _, head, _, *rows = results.format_peers().splitlines()
    assert "OTHER splits" in note and "test splits" in note
    assert all(len(cells(row)) == len(cells(head)) for row in rows)
    shown = {row[0]: row[2:6] for row in map(cells, rows)}
    assert shown["CRNN"] == ["78.2", "80.8", "", ""]
    assert shown["PP-OCRv6 small"] == ["96.2", "92.3", "79.6", "28"]
    assert all(peer.source for peer in results.PEERS)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a CPU")
def test_the_script_takes_one_cpu(folder, tmp_path):
    table = tmp_path / "results.json"
    command = [EXPERIMENTS / "results.py", "--model", folder / "first", "--data", folder / "data", "--json", table]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(EXPERIMENTS.parent)}
    process = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert "images/s, one CPU thread |" in process.stdout.splitlines()[0]
    assert json.loads(table.read_text())["cpus"] == 1


def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys):
    assert results.main(["--model", "none", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("results.py: none is neither a folder nor a bundled model (")


def test_a_damaged_dataset_costs_no_other_its_column(folder, tmp_path, capsys):
    damaged = tmp_path / "damaged"
    shutil.copytree(folder / "data", damaged)
    (damaged / "003.png").write_bytes((damaged / "003.png").read_bytes()[:-40])
    models, table = [str(folder / name) for name in ("first", "second")], tmp_path / "table.json"
    arguments = ["--model", *models, "--data", str(damaged), str(folder / "data"), "--json", str(table)]
    assert results.main(arguments) == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith(f"results.py: damaged is left out: {damaged}/003.png: does not decode")
    assert results.main(["--model", models[0], "--data", str(damaged)]) == 1
    assert capsys.readouterr() == ("", err)
    head, _, first, second, *_ = map(cells, out.splitlines())
    assert head[3:5] == ["data (12)", "ECE"] and first[3] == second[3]
    assert [list(of["datasets"]) for of in json.loads(table.read_text())["models"].values()] == [["data"]] * 2
