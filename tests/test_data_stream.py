"""Words from disk: what is kept, in which order they come, what damage does, and a run on them."""

import io
import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small import write_tfrecords
from toy import SLOTS, toy_config, toy_model, toy_source, toy_words

from crnn_jax.config import ConfigError, override
from crnn_jax.data import selection as selections
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.selection import select
from crnn_jax.data.stream import WordSource, stream
from crnn_jax.training import loop, words
from crnn_jax.training.checkpoint import CheckpointError, load_variables

pytest.importorskip("grain")


def jpeg(number: int) -> bytes:
    """Random squares, 32 pixels high and of a width by the number."""
    squares = np.random.default_rng(number).integers(0, 256, (4, 6 + number % 5), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(squares, np.ones((8, 8), np.uint8))).save(buffer, "JPEG")
    return buffer.getvalue()


def shards(folder, numbers, *, damaged=()) -> str:
    """Words labelled with their numbers, in two shards; the images of damaged ones are cut short."""
    folder.mkdir()
    samples = [(jpeg(i)[: -20 if i in damaged else None], str(i)) for i in numbers]
    middle = len(samples) // 2
    write_tfrecords(folder / "w.tfrecord-00000-of-00002", samples[:middle])
    write_tfrecords(folder / "w.tfrecord-00001-of-00002", samples[middle:])
    return str(folder)


def config_of(*assignments, sources=()):
    config = replace(toy_config(), data=replace(toy_config().data, sources=tuple(sources)))
    return override(config, list(assignments))


def sources_of(config):
    opened = [(path, *select(path, config)) for path in config.data.sources]
    return [WordSource(dataset, selection, config, name=path) for path, dataset, selection in opened]


def numbers(batches, count):
    """The labels of the next `count` batches, as numbers."""
    return [[int("".join(str(i - 1) for i in row if i)) for row in next(batches).label] for _ in range(count)]


def test_the_order_is_one_of_the_seed_and_every_word_comes_once_an_epoch(tmp_path):
    config = config_of(sources=[shards(tmp_path / "a", range(100, 140))])
    first = numbers(stream(sources_of(config), [1], config, rows=8), 15)
    epochs = [sum(first[i : i + 5], []) for i in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(100, 140)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3, "every epoch has an order of its own"
    assert first == numbers(stream(sources_of(config), [1], config, rows=8), 15)
    other = override(config, ["run.seed=1"])
    assert first != numbers(stream(sources_of(other), [1], other, rows=8), 15)


def test_a_resumed_stream_and_other_processes_see_the_same_batches(tmp_path):
    config = config_of(sources=[shards(tmp_path / "a", range(100, 130)), shards(tmp_path / "b", range(200, 237))])
    sources, weights = sources_of(config), [1, 3]
    whole = numbers(stream(sources, weights, config, rows=8), 12)
    assert numbers(stream(sources, weights, config, rows=8, start=7), 5) == whole[7:]
    halves = [numbers(stream(sources, weights, config, rows=4, process=i, processes=2), 12) for i in range(2)]
    assert [left + right for left, right in zip(*halves, strict=True)] == whole
    apart = override(config, ["run.read_processes=1", "run.read_threads=2"])
    assert numbers(stream(sources, weights, apart, rows=8, start=2), 3) == whole[2:5]
    batches = stream(sources, weights, apart, rows=8)
    assert type(next(batches).image) is np.ndarray, "none in shared memory, which would be left behind"
    batches.close()
    # One to three in every batch.
    assert all(sum(number < 200 for number in batch) == 2 for batch in whole)


def test_a_batch_is_what_the_model_takes(tmp_path):
    config = config_of(sources=[shards(tmp_path / "a", range(7, 17))])
    batch = next(stream(sources_of(config), [1], config, rows=10))
    assert batch.image.shape == (10, 32, 40) and batch.image.dtype == np.uint8
    assert batch.label.shape == (10, SLOTS) and batch.label.dtype == batch.label_length.dtype == np.int32
    assert sorted(batch.label_length.tolist()) == [1] * 3 + [2] * 7


def test_a_damaged_image_is_told_and_the_next_word_comes_in_its_place(tmp_path, caplog):
    path = shards(tmp_path / "a", range(100, 120), damaged=[104, 105])
    config = config_of("data.max_damaged=0.5", sources=[path])
    [source] = sources_of(config)
    assert len(source) == 20, "their headers are whole"
    seen = sum(numbers(stream([source], [1], config, rows=4), 5), [])
    assert sorted(seen) == sorted([*range(100, 104), 106, 106, *range(106, 120)])
    assert f"skipped: {path}/w.tfrecord-00000-of-00002, record 4: does not decode" in caplog.text


def test_neighbours_that_are_damaged_are_counted_once_each(tmp_path):
    config = config_of(
        "data.max_damaged=0.3", sources=[shards(tmp_path / "a", range(100, 120), damaged=range(103, 108))]
    )
    words = sum(numbers(stream(sources_of(config), [1], config, rows=10), 40), [])  # 5 of the 20 are damaged
    assert len(words) == 400 and words.count(108) == 120


def test_too_much_damage_stops_with_a_line(tmp_path):
    config = config_of(sources=[shards(tmp_path / "a", range(100, 120), damaged=range(100, 110))])
    with pytest.raises(
        DatasetError, match=r"a: \d+ of 1\d\d words read are damaged, more than data.max_damaged = 0.01"
    ):
        numbers(stream(sources_of(config), [1], config, rows=10), 30)


def test_what_cannot_be_trained_on_is_counted_with_its_reason(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    low, tall = io.BytesIO(), io.BytesIO()
    Image.new("L", (40, 5)).save(low, "PNG")
    Image.new("L", (16, 48)).save(tall, "PNG")
    samples = [
        (jpeg(1), "1"),
        (jpeg(2), "1234"),
        (jpeg(3), "3x"),
        (b"none", "4"),
        (low.getvalue(), "5"),
        (jpeg(6), "-"),
        (tall.getvalue(), "123"),
    ]
    path = write_tfrecords(folder / "w.tfrecord", [*samples, (jpeg(7), "7"), (jpeg(8), "8")])
    content = bytearray(path.read_bytes()[:-20])  # the end of the last record is missing,
    content[path.read_bytes().index(jpeg(7)) + 9] ^= 1  # and a bit of the one before is flipped
    path.write_bytes(content)
    dataset, selection = select(str(folder), config_of())
    assert len(dataset) == 8 and selection.indices.tolist() == [0]
    assert selection.left_out == {
        "longer than data.max_length = 3": 1,
        "characters outside the charset": 1,
        "damaged": 2,
        "less than 8 pixels high": 1,
        "no characters": 1,
        "turned on its side": 1,
        "cut short": 1,
    }
    assert selection.report("x").startswith(
        "x: 1 words; 1 left out: characters outside the charset; 1 left out: cut short; 2 left out: damaged"
    )
    places = "\n".join(selection.damage)
    assert all(f"{path}, record {i}: " in places for i in (3, 7, 8)), places


def test_nothing_left_to_train_on_is_said(tmp_path):
    with pytest.raises(DatasetError, match="a: 0 words; 4 left out: longer than .*: nothing is left to train on"):
        select(shards(tmp_path / "a", range(1000, 1004)), config_of())


def test_a_selection_is_kept_for_the_next_start_until_the_files_change(tmp_path, monkeypatch):
    path, config = shards(tmp_path / "a", [1, 2, 3, 4444]), config_of()
    _, first = select(path, config, cache=tmp_path / "cache")
    monkeypatch.setattr(selections, "_look", None)
    _, again = select(path, config, cache=tmp_path / "cache")
    assert again.indices.tolist() == first.indices.tolist() == [0, 1, 2]
    assert (again.left_out, again.damage) == (first.left_out, first.damage)
    with pytest.raises(TypeError):  # it looks again
        select(path, override(config, ["data.max_length=4"]), cache=tmp_path / "cache")
    write_tfrecords(tmp_path / "a" / "w.tfrecord-00001-of-00002", [(jpeg(1), "1")])
    with pytest.raises(TypeError):
        select(path, config, cache=tmp_path / "cache")


def test_several_processes_select_what_one_does(tmp_path, monkeypatch):
    path, config = shards(tmp_path / "a", range(990, 1010)), config_of()
    _, one = select(path, config)
    monkeypatch.setattr(selections, "IN_PARALLEL", 1)
    monkeypatch.setattr(selections, "CHUNK", 7)
    _, two = select(path, config, processes=2)
    assert two.indices.tolist() == one.indices.tolist() == list(range(10))
    assert two.left_out == one.left_out == {"longer than data.max_length = 3": 10}


def test_a_device_takes_both_kinds_in_fours():
    rows = [words.streamed_rows(config_of(f"data.weights={w}", sources=["x", "rendered"]), 32) for w in ("1,1", "9,1")]
    assert rows == [16, 28]
    assert words.streamed_rows(config_of("data.weights=1,9999", sources=["x", "rendered"]), 32) == 4
    assert words.streamed_rows(config_of(sources=["x"]), 6) == 6
    assert words.streamed_rows(config_of(sources=["rendered"]), 8) == words.streamed_rows(config_of(), 8) == 0
    with pytest.raises(ConfigError, match="4 words per device are too few to mix rendered ones"):
        words.streamed_rows(config_of(sources=["x", "rendered"]), 4)


@pytest.fixture
def toy(monkeypatch):
    """The toy's network and rendered words; this process has eight devices."""
    monkeypatch.setattr(loop, "build", toy_model)
    monkeypatch.setattr(words, "load_source", toy_source)
    monkeypatch.setattr(words, "synth_batch", toy_words)


def run_config(tmp_path, *assignments, sources=None, **options):
    sources = sources or [shards(tmp_path / "a", range(100, 160), **options), "rendered"]
    config = config_of(*assignments, sources=sources)
    validation = shards(tmp_path / "validation", range(200, 260))
    return override(config, ["run.batch_size=64", f"data.validation={validation}"])


def test_a_run_crashed_in_the_middle_goes_on_bit_equal(tmp_path, toy, monkeypatch, capsys):
    config = run_config(tmp_path)
    whole = loop.train(config, tmp_path / "whole")
    out = capsys.readouterr().out
    assert f"{config.data.sources[0]}: 60 words\n" in out and "of 40 held-out real words read right" in out
    assert "of every 8 words, 4 are read from disk and 4 rendered" in out
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    waits = [line["input_wait"] for line in lines if line["split"] == "train"]
    assert max(waits) > 0 and min(waits) >= 0

    read, calls = loop.read_dispatch, []

    def crash(*args):
        calls.append(args)
        if len(calls) == 5:
            raise RuntimeError("power cut")
        return read(*args)

    monkeypatch.setattr(loop, "read_dispatch", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        loop.train(config, tmp_path / "cut")
    monkeypatch.setattr(loop, "read_dispatch", read)
    assert loop.train(config, tmp_path / "cut") == whole
    one, two = (load_variables(tmp_path / name)[1] for name in ("whole", "cut"))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, two))


def test_a_run_that_its_data_stops_is_saved_first(tmp_path, toy, monkeypatch):
    config, read, calls = run_config(tmp_path), loop.read_dispatch, []

    def fail(*args):
        calls.append(args)
        if len(calls) == 4:
            raise DatasetError("2 of 100 words read are damaged")
        return read(*args)

    monkeypatch.setattr(loop, "read_dispatch", fail)
    with pytest.raises(DatasetError, match="2 of 100"):
        loop.train(config, tmp_path / "run")
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").glob("6")] == ["6"]
    assert loop.train(override(config, ["data.max_damaged=0.1"]), tmp_path / "run")["step"] == 12


def test_a_run_whose_files_are_others_now_is_refused_but_not_one_whose_files_have_moved(tmp_path, toy):
    config = run_config(tmp_path, "run.steps=4", "run.checkpoint_every=2")
    done = loop.train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert loop.train(override(config, [f"data.sources={tmp_path}/b,rendered"]), tmp_path / "run") == done
    with pytest.raises(CheckpointError, match=r"data.sources was .*; use another --workdir, which can start from"):
        loop.train(override(config, [f"data.sources=rendered,{tmp_path}/b"]), tmp_path / "run")
    shutil.rmtree(tmp_path / "b")
    shards(tmp_path / "a", range(100, 159))
    with pytest.raises(CheckpointError, match=r"words of \S*a: 60 \(\w{8}\) before, 59 \(\w{8}\) now: "):
        loop.train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "a")
    shards(tmp_path / "a", [*range(100, 159), 999])  # as many, but one of them is another
    with pytest.raises(CheckpointError, match=r"words of \S*a: 60 \(\w{8}\) before, 60 \(\w{8}\) now: "):
        loop.train(config, tmp_path / "run")


def test_augmented_words_are_warped_anew(tmp_path, toy):
    config = run_config(tmp_path, "data.augment=true")
    loaded, _ = words.load_words(config)
    sources, weights, _ = words.open_sources(config, cache=tmp_path, processes=1)
    assert [source.name for source in sources] == [config.data.sources[0]] and weights == [1.0]
    batch, first = next(stream(sources, weights, config, rows=4)), jnp.int32(0)
    drawn = [words.train_batch(jax.random.key(i), loaded, first, streamed=batch, config=config, size=8) for i in (0, 1)]
    assert not np.array_equal(drawn[0].image[4:], drawn[1].image[4:])
    np.testing.assert_array_equal(drawn[0].label[4:], batch.label)
    plain = words.train_batch(
        jax.random.key(0), loaded, first, streamed=batch, config=override(config, ["data.augment=false"]), size=8
    )
    np.testing.assert_array_equal(plain.image[4:], batch.image)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.weights=1", "data.weights = .*: expected one for each of data.sources, or none"),
        ("data.weights=1,-1", "data.weights = .*: expected numbers above 0"),
        ("data.sources=x,x", "data.sources = .*: expected each dataset only once"),
        ("data.weights=1,y", "data.weights = 1,y: expected numbers, such as 3,1"),
        ("data.max_damaged=1", "data.max_damaged = 1.0: expected at least 0 and below 1"),
    ],
)
def test_what_does_not_go_together_is_refused(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(config_of(sources=["x", "rendered"]), [assignment])
