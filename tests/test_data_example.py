import builtins
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from crnn_jax.data.example import label_name, parse_features, serialise, to_record
from crnn_jax.data.sample import DatasetError

pytest.importorskip("tensorflow_datasets")


def test_what_is_written_is_read():
    message = serialise(b"jpeg", "né")
    assert message == serialise(b"jpeg", "né")
    assert label_name(parse_features(message, "here"), "here") == "text/string"
    assert to_record(message, "text/string", "here") == (b"jpeg", "né", "here")


@pytest.mark.parametrize(
    ("message", "error"),
    [(b"\xff\xff", "here: not a tf.train.Example"), (b"", "here: image/encoded has 0 byte strings instead of one")],
)
def test_what_is_no_word_has_one_line(message, error):
    with pytest.raises(DatasetError, match=f"^{error}$"):
        to_record(message, "text/string", "here")


def test_threads_import_one_at_a_time(monkeypatch):
    """Two imports of TFDS' lazy modules at once can deadlock: seen with reading threads."""
    original, inside, most = builtins.__import__, threading.Semaphore(0), []

    def slow_import(name, *args, **options):
        if name != "tensorflow_datasets.proto":
            return original(name, *args, **options)
        inside.release()
        time.sleep(0.02)
        most.append(inside._value)
        module = original(name, *args, **options)
        inside.acquire()
        return module

    message = serialise(b"jpeg", "word")
    monkeypatch.setattr(builtins, "__import__", slow_import)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: parse_features(message, "here"), range(8)))
    assert most == [1] * 8
