"""experiments/bench.py runs, and reports a rate for everything that it names."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
from PIL import Image
from small import EXPERIMENTS, load_script, noise_images, save_small


@pytest.fixture
def bench():
    """The script."""
    return load_script("bench")


@pytest.fixture
def words(tmp_path):
    """A folder of twenty labelled images."""
    folder = tmp_path / "words"
    folder.mkdir()
    for i, image in enumerate(noise_images(20)):
        Image.fromarray(image).save(folder / f"{i}.jpg")
    (folder / "labels.tsv").write_text("".join(f"{i}.jpg\tword{i}\n" for i in range(20)))
    return folder


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["render", "--styles", "plain"], ["plain"]),
        (["step"], ["step with rendering", "step on ready words", "rendering alone"]),
    ],
)
def test_a_rate_for_every_row(bench, arguments, names, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    small = ["run.batch_size=8", "data.fonts=2", "data.style=plain"]
    told = tmp_path / "told.json"
    assert bench.main([*arguments, "--config", "quickstart", "--set", *small, "--json", str(told)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "batch 8" in head
    rates = {row[:24].strip(): int(row[24:].split()[0].replace(",", "")) for row in rows}
    assert list(rates) == names and min(rates.values()) > 0
    report = json.loads(told.read_text())
    assert {name: round(rate) for name, rate in report["images_per_second"].items()} == rates
    assert report["what"] == arguments[0] and report["settings"] == small and report["batch"] == 8
    assert report["machine"]["processor"]


def test_settings_of_a_style_are_rendered_and_steps_are_compiled_as_train_does(bench, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(bench, "render_rates", lambda configs: seen.append(configs["photo"]) or {"photo": 1.0})
    changed = ["data.style.curve_share=0", "run.batch_size=8"]
    assert bench.main(["render", "--styles", "photo", "--set", *changed]) == 0
    assert seen[0].data.style.curve_share == 0 and seen[0].data.style.neighbour_share > 0
    order = []
    monkeypatch.setattr(bench, "leave_out_fusion_emitters", lambda: order.append("flags"))
    monkeypatch.setattr(bench.jax, "devices", lambda: order.append("devices") or [SimpleNamespace(device_kind="cpu")])
    monkeypatch.setattr(bench, "step_rates", lambda config: {"step": 1.0})
    assert bench.main(["step"]) == 0
    assert order[:2] == ["flags", "devices"]


def test_a_rate_for_every_kind_of_dataset(bench, words, monkeypatch, capsys):
    pytest.importorskip("grain")
    monkeypatch.setattr("supply.ROUNDS", 1)
    monkeypatch.setattr("supply.SECONDS", 0.0)
    monkeypatch.setattr("supply.WAYS", {"threads": ["run.read_threads={}"]})  # processes take seconds to start
    assert bench.main(["data", "--data", str(words), "--words", "16", "--set", "run.batch_size=8"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    rates = {row[:24].split(",")[0]: int(row[24:].split()[0].replace(",", "")) for row in rows}
    assert list(rates)[:4] == ["tfrecord", "array_record", "lmdb", "folder"] and min(rates.values()) > 0
    assert bench.main(["data", "--data", str(words / "none")]) == 1
    assert capsys.readouterr().err == f"bench.py: {words}/none: no such file or folder\n"


def test_an_unknown_style_is_told_in_one_line(bench, capsys):
    assert bench.main(["render", "--styles", "none"]) == 1
    assert re.fullmatch(r"bench.py: data.style = none: expected one of [^\n]*\n", capsys.readouterr().err)


@pytest.mark.parametrize("processes", [0, 1])
def test_memory_of_every_process_that_reads(bench, processes, words, monkeypatch, tmp_path, capsys):
    pytest.importorskip("grain")
    settings = ["run.batch_size=8", f"run.read_processes={processes}"]
    told = ["--json", str(tmp_path / "told.json")]
    assert bench.main(["memory", "--data", str(words), "--words", "800", "--set", *settings, *told]) == 0
    rows = [re.findall(r"[\d,]+", line) for line in capsys.readouterr().out.splitlines()]
    assert [int(row[0]) for row in rows] == [80 * tenth for tenth in range(11)]
    sizes = [int(size.replace(",", "")) for size in rows[-1][1:]]
    assert len(sizes) == 1 + processes and min(sizes) > 50
    report = json.loads((tmp_path / "told.json").read_text())
    assert [round(size / 1e6) for size in report["bytes_after_words"]["800"]] == sizes
    assert bench.main(["memory", "--data", str(words / "none")]) == 1
    monkeypatch.setitem(sys.modules, "psutil", None)
    capsys.readouterr()
    assert bench.main(["memory", "--data", str(words)]) == 1
    assert re.fullmatch(r"bench.py: [^\n]*psutil[^\n]*\n", capsys.readouterr().err)


def test_later_starts_are_told_beside_the_first(bench, tmp_path, capsys):
    model, told = save_small(tmp_path / "model"), tmp_path / "told.json"
    assert bench.main(["start", "--model", str(model), "--rounds", "1", "--json", str(told)]) == 0
    rows = [re.fullmatch(r"(.{24}) ([0-9.]+) s \(.*\)", line) for line in capsys.readouterr().out.splitlines()]
    seconds = {row[1].strip(): float(row[2]) for row in rows}
    assert list(seconds) == ["first start", "later starts", "imports alone"]
    assert seconds["first start"] > seconds["later starts"] > 0 < seconds["imports alone"]
    report = json.loads(told.read_text())
    assert report["model"] == str(model) and {n: round(s, 2) for n, [s] in report["seconds"].items()} == seconds
    assert bench.main(["start", "--model", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(f"bench.py: {tmp_path}/none is neither a folder nor a bundled model")


@pytest.fixture
def contest(bench, monkeypatch):
    """Contests of one short round in which only this package takes part."""
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr("lineup.SIDE", {"cpu": 32})
    monkeypatch.setattr("lineup.COPIED", 1 << 12)
    monkeypatch.setattr("contest.find_spec", lambda name: None)
    for name, value in {"PYTHONPATH": str(EXPERIMENTS.parent), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_contest_tells_what_the_work_takes_and_who_is_left_out(bench, contest, tmp_path, capsys):
    arguments = ["--batch", "2", "--rounds", "2", "--threads", "1", "--json", str(tmp_path / "report.json")]
    assert bench.main(["ctc", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"jax {bench.jax.__version__}" in lines.pop(0)
    assert lines[0] == "cpu, CPUs each: 1, batch 2, float32" and "words/s" in lines[2]
    missing = "torch is not installed: pip install -e '.[peers]'"
    assert lines[3].startswith("crnn_jax ") and lines[-1] == f"left out: torch, product, torch, copy, torch: {missing}"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["machine"]["jax"] == bench.jax.__version__ and report["machine"]["processor"]
    assert (report["what"], report["config"], report["threads"], report["batch"]) == ("ctc", "crnn", 1, 2)
    assert min(report["ceilings"].values()) > 0 and set(report["left_out"].values()) == {missing}
    (row,) = report["contestants"]
    assert row["name"] == "crnn_jax" and len(row["rounds"]) == 2
    # Both passes; 26 frames of 37 classes and of 2 * 24 + 1 states.
    assert row["flops"] == 3 * 2 * 26 * (4 * 37 + 8 * 49)
    assert row["words_per_second"] == pytest.approx(2 / row["seconds"])
    assert row["share_of_product"] == row["flops"] / row["seconds"] / report["ceilings"]["flops_per_second"]
    assert 0 < row["share_of_copy"] and 0 < row["first_call_seconds"]
    assert 5e7 < row["peak_memory_bytes"] < 5e9 and row["peak_device_memory_bytes"] is None


def test_a_contest_of_readers_tells_how_much_was_right(bench, contest, words, tmp_path, capsys):
    model = save_small(tmp_path / "model")
    readings = bench.crnn_jax.load(model).read([str(words / f"{i}.jpg") for i in range(4)])
    (words / "labels.tsv").write_text("".join(f"{i}.jpg\t{readings[i // 2 * 2].text}\n" for i in range(4)))
    arguments = ["--batch", "4", "--rounds", "1", "--json", str(tmp_path / "report.json")]
    assert bench.main(["read", "--model", str(model), "--data", str(words), *arguments]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["word_accuracy"] for row in report["contestants"]] == [50.0, 50.0]
    one_at_a_time, in_batches = report["contestants"]
    assert one_at_a_time["flops"] == in_batches["flops"] > 0 and one_at_a_time["bytes"] > in_batches["bytes"]
    assert (report["threads"], report["batch"]) == (1, 4)
    assert list(report["left_out"]) == [
        *("Tesseract", "PP-OCR, one at a time", "PP-OCR, in batches"),
        *("product, torch", "copy, torch"),
    ]
    assert "50.0 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "none"], "no config 'none': expected [^\n]*"),
        (["train", "--set", "model.height=4"], "model.height = 4 [^\n]*"),
        (["train", "--threads", "0"], "--threads 0: expected 1 to [0-9]+, the number of CPUs"),
        (["ctc", "--batch", "0"], "--batch and --rounds must be at least 1"),
        (["read", "--model", "none"], "[^\n]*none[^\n]*"),
        (["read", "--model", "tiny", "--data", "none"], "none: no such file or folder"),
    ],
)
def test_what_a_contest_cannot_do_is_told_in_one_line(bench, arguments, message, capsys):
    assert bench.main(arguments) == 1
    assert re.fullmatch(f"bench.py: {message}\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ctc", "--model", "tiny"],
        ["read", "--model", "tiny", "--set", "run.seed=1"],
        ["read", "--data", "words"],
        ["step", "--styles", "photo"],
        ["render", "--words", "9"],
        ["start", "--set", "run.seed=1"],
        ["start", "--batch", "9"],
    ],
)
def test_options_of_other_commands_are_refused(bench, arguments, capsys):
    with pytest.raises(SystemExit):
        bench.main(arguments)
    assert "error: --" in capsys.readouterr().err
