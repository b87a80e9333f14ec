"""What counts as read right, and how datasets are called."""

import csv
import json
import os
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from small import SMALL, load_script, noise_images, save_small

import crnn_jax
from crnn_jax.config import Config
from crnn_jax.data.sample import DatasetError
from crnn_jax.evaluation import Evaluation, dataset_words, open_datasets, read_words


def write_folder(folder, labels):
    folder.mkdir(parents=True)
    for i, (image, _) in enumerate(zip(noise_images(len(labels)), labels, strict=True)):
        Image.fromarray(image).save(folder / f"{i}.png")
    lines = [f"{i}.png\t{label}\n" for i, label in enumerate(labels)]
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return str(folder)


def test_letters_beyond_ascii_can_be_wrong(tmp_path):
    reader = crnn_jax.load(save_small(tmp_path / "greek", replace(SMALL, charset="αβγδ")))
    read = [reading.text for reading in reader.read(noise_images(4))]
    assert all(read)

    def accuracy(name, labels):
        path = write_folder(tmp_path / name, labels)
        [(name, dataset)] = open_datasets([path], reader.config).items()
        return read_words(reader, dataset_words(reader, dataset, name)).row()["word_accuracy"]

    assert accuracy("right", [text.upper() for text in read]) == 100
    assert accuracy("wrong", [text + "α" for text in read]) == 0


def test_what_a_charset_cannot_spell_is_told_where_it_is_asked_for(tmp_path, capsys):
    model, path = (
        save_small(tmp_path / "small", replace(SMALL, charset="36")),
        write_folder(tmp_path / "data", ["word"]),
    )
    assert load_script("evaluate").main(["--model", str(model), "--data", path, "--cased", "--punctuation"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"evaluate.py: {model} has letters of only one case: with --cased, labels with the other are always wrong",
        f"evaluate.py: {model} has no punctuation marks: with --punctuation, labels with one are always wrong",
    ]


def test_what_is_damaged_costs_no_other_word_its_place(tmp_path, capsys):
    model, whole, damaged, lost = (
        save_small(tmp_path / "m"),
        *(tmp_path / name for name in ("whole", "damaged", "lost")),
    )
    labels = [f"word{i}" for i in range(6)]
    for folder in (whole, damaged, lost):
        write_folder(folder, labels)
    (damaged / "1.png").write_bytes((damaged / "1.png").read_bytes()[:-40])
    (damaged / "3.png").unlink()
    with (damaged / "labels.tsv").open("a") as file:
        file.write("no label\n")
    for image in lost.glob("*.png"):
        image.write_bytes(b"")
    table, page, words = tmp_path / "table.json", tmp_path / "page.html", tmp_path / "words.tsv"
    arguments = ["--model", str(model), "--data", *map(str, (damaged, lost, whole))]
    arguments += ["--json", str(table), "--html", str(page), "--words", str(words)]
    assert load_script("evaluate").main(arguments) == 1
    first, second = capsys.readouterr().err.splitlines()
    told = "1 line without a label, 1 image does not decode, 1 missing image"
    assert first.startswith(f"evaluate.py: damaged: left out: {told}; the first: {damaged}/labels.tsv, line 7: no tab")
    assert second == f"evaluate.py: lost: left out: 6 empty image; the first: {lost}/0.png: empty"
    measured = json.loads(table.read_text())
    assert {name: row["count"] for name, row in measured["datasets"].items()} == {"damaged": 4, "whole": 6}
    assert measured["left_out"] == {"damaged": 3, "lost": 6} and measured["totals"]["all words"]["count"] == 10
    with words.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["dataset"] == "damaged"]
    assert [(row["number"], row["image"], row["label"]) for row in rows] == [
        (str(i), f"{i}.png", f"word{i}") for i in (0, 2, 4, 5)
    ]
    # No part is taken of a damaged dataset: it is not known where it would begin.
    assert load_script("evaluate").main([*arguments[:3], arguments[3], "--part", "rest"]) == 1
    assert capsys.readouterr().err.endswith(f"no such image: {damaged}/3.png\n")
    # The page shows every mistake with the image that belongs to it.
    read = {row["text"]: row["image"] for row in rows}
    assert len(read) == 4 and all(f"<br>{row['image']}<br>{row['label']}" in page.read_text() for row in rows)


def test_output_that_nobody_reads_any_more_is_no_error_to_tell(tmp_path, monkeypatch, capsys):
    """The error is left to `command.run`, which ends the script silently."""
    model, path = save_small(tmp_path / "m"), write_folder(tmp_path / "a", ["one", "two"])
    reading, writing = os.pipe()
    os.close(reading)
    gone = open(writing, "w", buffering=1)
    monkeypatch.setattr("sys.stdout", gone)
    with pytest.raises(BrokenPipeError):
        load_script("evaluate").main(["--model", str(model), "--data", path])
    assert capsys.readouterr().err == ""
    with suppress(BrokenPipeError):
        gone.close()


def test_letters_that_the_model_lacks_are_told_and_a_ratio_of_nothing_is_null(tmp_path, capsys):
    model, words = save_small(tmp_path / "model"), write_folder(tmp_path / "words", ["Привет", "да"])
    assert (
        load_script("evaluate").main(["--model", str(model), "--data", words, "--json", str(tmp_path / "table.json")])
        == 0
    )
    message = f"words: 2 labels have letters that {model} lacks, which are not compared: Павдеирт\n"
    assert capsys.readouterr().err.endswith(message)
    assert json.loads((tmp_path / "table.json").read_text())["datasets"]["words"]["character_error_rate"] is None


def test_every_word_is_written_as_it_was_read(tmp_path, capsys):
    model = save_small(tmp_path / "m")
    read = [reading.text for reading in crnn_jax.load(model).read(noise_images(3))]
    folders = [write_folder(tmp_path / "a", [*read[:2], 'two  "words"']), write_folder(tmp_path / "b", ["none of it"])]
    table, target = tmp_path / "table.json", tmp_path / "words.tsv"
    arguments = ["--model", str(model), "--data", *folders, "--json", str(table), "--words", str(target)]
    assert load_script("evaluate").main(arguments) == 0
    with target.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file, delimiter="\t")
    assert head == ["dataset", "number", "image", "label", "text", "confidence", "right"]
    assert [row[:4] for row in rows] == [
        ["a", "0", "0.png", read[0]],
        ["a", "1", "1.png", read[1]],
        ["a", "2", "2.png", 'two  "words"'],
        ["b", "0", "0.png", "none of it"],
    ]
    assert [row[4] for row in rows[:3]] == read
    right = sum(int(row[6]) for row in rows[:3])
    assert right == 2 and json.loads(table.read_text())["datasets"]["a"]["word_accuracy"] == pytest.approx(
        100 * right / 3
    )
    assert all(0 <= float(row[5]) <= 1 for row in rows)
    assert load_script("evaluate").main([*arguments[:-1], str(table)]) == 1
    assert "two outputs are the same file" in capsys.readouterr().err


def test_a_list_may_have_any_name(tmp_path):
    write_folder(tmp_path / "data", ["one", "two"])
    list_path = (tmp_path / "data" / "labels.tsv").rename(tmp_path / "data" / "rec_gt_train.txt")
    [(name, dataset)] = open_datasets([str(list_path)], Config()).items()
    assert name == "rec_gt_train.txt" and [sample.label for sample in dataset] == ["one", "two"]


def test_a_folder_has_not_the_name_of_another_row(tmp_path, monkeypatch):
    monkeypatch.setattr("crnn_jax.evaluation.RenderedWords", lambda config: ["rendered words"])
    folders = [write_folder(tmp_path / part, ["a"]) for part in ("rendered", "x/all", "x/words", "y/words")]
    names = list(open_datasets([*folders, "rendered"], Config()))
    assert names == [folders[0], folders[1], "words", folders[3], "rendered"]
    with pytest.raises(DatasetError, match="given twice"):
        open_datasets([folders[0], folders[0] + "/../rendered"], Config())


def test_rendered_words_need_a_charset_that_spells_them():
    config = Config(model=replace(SMALL, charset="αβγδ"))
    with pytest.raises(DatasetError, match="rendered: model.charset has no ASCII letters or digits, and only"):
        open_datasets(["rendered"], config)


def test_a_row_of_no_words_is_nan():
    assert np.isnan(Evaluation([], 1.0).row()["word_accuracy"])
