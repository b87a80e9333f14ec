"""prepare.py as a user runs it: what it prints and writes, exit codes, one line for bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from original import write_original
from PIL import Image
from small import EXPERIMENTS, load_script, noise_images, write_lmdb

from crnn_jax.data.dataset import open_dataset

pytest.importorskip("lmdb")
pytest.importorskip("array_record")
pytest.importorskip("google_crc32c")

prepare = load_script("prepare")
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(EXPERIMENTS.parent)}


def run(capsys, *arguments):
    """Calls main: (exit code, lines of stdout, lines of stderr)."""
    code = prepare.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


@pytest.fixture
def words(tmp_path):
    """A folder of eight words, the last of which has no image."""
    folder = tmp_path / "words"
    folder.mkdir()
    for i, image in enumerate(noise_images(7)):
        Image.fromarray(image).save(folder / f"{i}.png")
    (folder / "labels.tsv").write_text("".join(f"{i}.png\tné{i}\n" for i in range(8)))
    return folder


def test_conversion_from_kind_to_kind(words, tmp_path, capsys):
    data, skipped = words, 1
    for format in ("lmdb", "tfrecord", "array_record", "folder"):
        out = tmp_path / format
        sharded = ["--shards", 2] if format in ("tfrecord", "array_record") else []
        code, lines, err = run(capsys, "convert", "--data", data, "--out", out, "--format", format, *sharded)
        assert (code, len(lines), err) == (0, 1, [])
        assert lines[0].startswith(f"{out}: 7 words, ")
        assert lines[0].endswith(f"; skipped 1: 1 missing image; see {out}.report.json") == bool(skipped)
        report = json.loads((tmp_path / f"{format}.report.json").read_text())
        assert (report["data"], report["written"], report["damage"]["skipped"]) == ([str(data)], 7, skipped)
        places = [{"reason": "missing image", "message": f"{words}/7.png: No such file or directory"}]
        assert report["damage"]["places"] == places[:skipped]
        data, skipped = out, 0
    dataset = open_dataset(data)
    assert [dataset[i].label for i in range(7)] == [f"né{i}" for i in range(7)]
    assert [dataset[i].image for i in range(7)] == [(words / f"{i}.png").read_bytes() for i in range(7)]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_several_datasets_become_one(words, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--format", "tfrecord", "--shards", "3", "--name", "both"]
    code, lines, _ = run(capsys, "convert", "--data", words, words / "labels.tsv", "--out", out, *arguments)
    assert (code, len(open_dataset(out))) == (0, 14)
    assert "skipped 2: 2 missing image" in lines[0]
    assert sorted(path.name for path in out.iterdir()) == [f"both.tfrecord-0000{i}-of-00003" for i in range(3)]


def test_inspect_prints_writes_and_draws(words, tmp_path, capsys):
    page, table = tmp_path / "page.png", tmp_path / "table.json"
    code, lines, err = run(capsys, "inspect", "--data", words, "--sheet", page, "--json", table)
    assert (code, err) == (0, [])
    assert lines[:2] == [f"data        {words}", "words       7, 1 damaged places"]
    assert f"            {words}/7.png: No such file or directory" in lines
    assert "heights     min 32, 5 % 32, median 32, 95 % 32, max 32" in lines
    found = json.loads(table.read_text())
    assert (found["data"], found["words"], found["characters"]["é"]) == (str(words), 7, 7)
    with Image.open(page) as image:
        drawn = np.asarray(image)
    assert drawn.shape == (2 * 48, 6 * 168)  # seven words: two rows of six
    for i, image in enumerate(noise_images(7)):
        if image.shape[1] <= 160:  # wider ones are squeezed
            top, left = 48 * (i // 6) + 2, 168 * (i % 6) + 4
            np.testing.assert_array_equal(drawn[top : top + 32, left : left + image.shape[1]], image)
    assert drawn[48:, 168:].min() == 255  # after the seventh


def test_labels_of_all_kinds_have_a_place_on_the_sheet(words, tmp_path, capsys):
    (words / "labels.tsv").write_text("0.png\t\n1.png\t日本\n2.png\t" + "long" * 100 + "\n")
    code, _, err = run(capsys, "inspect", "--data", words, "--sheet", tmp_path / "page.png")
    assert (code, err) == (0, [])
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (6 * 168, 48)


def break_num_samples(folder):
    import lmdb

    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"num-samples")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("inspect --data {tmp}/none", "{tmp}/none: no such file or folder"),
        ("inspect --data {tmp}/empty", "{tmp}/empty: the folder is empty"),
        ("inspect --data {tmp}/lmdb", "{tmp}/lmdb: the key num-samples is missing"),
        ("inspect --data {tmp}/zero.tfrecord", "{tmp}/zero.tfrecord: no records"),
        ("inspect --data {tmp}/zero.array_record", "{tmp}/zero.array_record: the file is empty"),
        (
            "inspect --data {tmp}/gone",
            "{tmp}/gone: no word can be read: 1 missing image: {tmp}/gone/a.png: No such file or directory",
        ),
        ("convert --data {words} {tmp}/none --out {tmp}/out --format lmdb", "{tmp}/none: no such file or folder"),
        ("convert --data {tmp}/lmdb --out {tmp}/out --format lmdb", "{tmp}/lmdb: the key num-samples is missing"),
        (
            "convert --data {words} --out {tmp}/full --format folder",
            "{tmp}/full: already exists; remove it or choose another",
        ),
        (
            "convert --data {words} --out {words}/labels.tsv/out --format folder",
            "{words}/labels.tsv/out: cannot be written: Not a directory",
        ),
        (
            "convert --data {words} --out {tmp}/out --format lmdb --shards 2",
            "--shards and --name work only with tfrecord and array_record, not with lmdb",
        ),
        (
            "convert --data {words} --out {tmp}/out --format tfrecord --shards 9",
            "shards = 9: expected 1 to 8, the number of words",
        ),
        (
            "convert --data {tmp}/gone --out {tmp}/out --format lmdb",
            "{tmp}/gone: no word could be converted: 1 missing image; see {tmp}/out.report.json",
        ),
    ],
)
def test_what_is_wrong_is_one_line(words, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    for name in ("zero.tfrecord", "zero.array_record"):
        (tmp_path / name).write_bytes(b"")
    break_num_samples(write_lmdb(tmp_path / "lmdb", [(b"x", "x")]))
    for name in ("gone", "full"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.tsv").write_text("a.png\tx")
    names = {"tmp": tmp_path, "words": words}
    code, out, err = run(capsys, *arguments.format(**names).split())
    assert (code, out) == (1, [])
    assert err == ["prepare.py: " + message.format(**names)]
    assert not (tmp_path / "out").exists()


def test_a_sheet_that_cannot_be_written_is_one_line(words, tmp_path, capsys):
    target = tmp_path / "none" / "page.png"
    code, out, err = run(capsys, "inspect", "--data", words, "--sheet", target)
    assert (code, out) == (1, []), "before the words are read"
    assert err == [f"prepare.py: [Errno 2] No such file or directory: '{target}'"]
    code, _, err = run(capsys, "inspect", "--data", words, "--sheet", tmp_path / "page")  # whatever its name
    assert (code, err) == (0, [])
    with Image.open(tmp_path / "page") as image:
        assert image.format == "PNG"


def test_interrupted_it_leaves_nothing(words, tmp_path):
    """As a process: it says so in one line and exits as shells expect."""
    labels = "".join(f"{i % 7}.png\t{i}\n" for i in range(200_000))
    (words / "labels.tsv").write_text(labels)
    # Where the tests run in the background of a shell, they and what they start ignore SIGINT.
    heed = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    heed += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", heed, EXPERIMENTS / "prepare.py", "convert", "--data", words]
    command += ["--out", tmp_path / "out", "--format", "tfrecord"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / ".incomplete-out").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        130,
        "prepare.py: interrupted; nothing is left half-written, and synth90k can be resumed\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["words"]


def test_synth90k_is_prepared_and_its_splits_are_datasets(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    source, out = tmp_path / "90kDICT32px", tmp_path / "out"
    write_original(source)
    arguments = ["synth90k", "--source", source, "--out", out, "--shards", "2", "--workers", "1"]
    code, lines, err = run(capsys, *arguments)
    assert (code, err) == (0, [])
    disagree = "3 label and lexicon disagree"
    assert lines[0] == (
        f"train: 30 of 36 images; dropped: 1 empty, {disagree}, 1 missing, 1 unreadable; the original has 7,224,612"
    )
    code, shown, _ = run(capsys, "inspect", "--data", f"{out}/synth90k-train.*")
    assert code == 0 and "words       30, 0 damaged" in shown
    assert run(capsys, *arguments) == (code, lines, err), "again it only says the same"
    code, _, err = run(capsys, "inspect", "--data", out)
    assert code == 1 and "contains several splits; choose one: " in err[0] and f"{out}/synth90k-train.*" in err[0]
    code, _, err = run(capsys, "synth90k", "--source", tmp_path / "none", "--out", tmp_path / "o")
    assert code == 1 and len(err) == 1 and "No such file" in err[0]


def test_a_stand_in_says_how_many_words_it_has(tmp_path, capsys, monkeypatch):
    script = load_script("prepare")
    monkeypatch.setattr(script, "write_stand_in", lambda folder, **options: {"train": options["count"], "test": 1})
    assert script.main(["stand-in", "--out", str(tmp_path / "x"), "--count", "5"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/x: 5 words for train, 1 words for test\n"
