"""Programs kept in a folder: made once, used only for exactly what they were made from, and limited in size."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from small import SMALL, noise_images, save_small

import crnn_jax
from crnn_jax import program_cache
from crnn_jax.program_cache import ProgramCache
from crnn_jax.reader import Reader
from crnn_jax.training.checkpoint import CheckpointError


@pytest.fixture
def folder(tmp_path):
    """A folder for programs. JAX's own cache is off meanwhile: it would keep some from being written."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    use_jax_cache(None, 0)
    yield tmp_path / "programs"
    use_jax_cache(*before)


def use_jax_cache(folder, at_least):
    """Uses JAX's own cache from now on, for programs that take `at_least` seconds to compile."""
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", at_least)


class Doubled:
    """A function, and how often it was traced."""

    def __init__(self):
        self.traced = 0
        self.function = partial(jax.jit, static_argnames="model")(self.doubled)

    def doubled(self, variables, x, *, model):
        self.traced += 1
        return variables["params"] * x + len(model)


def test_a_program_is_traced_once_for_all_processes(folder):
    made, variables = Doubled(), {"params": np.full(3, 2.0, np.float32)}
    for _ in range(2):  # each a process of its own
        programs = ProgramCache(folder, "of 5")
        for x in (1.0, 2.0, np.arange(3.0, dtype=np.float32), np.ones(3, np.float32)):
            np.testing.assert_allclose(programs(made.function, variables, x), 2 * np.ones(3) * x + 4)
    assert made.traced == 2  # for a number and for an array
    assert len(list(folder.iterdir())) == 2
    # Another model, other shapes or other types need another program.
    np.testing.assert_allclose(ProgramCache(folder, "of six")(made.function, variables, 1.0), [8] * 3)
    ProgramCache(folder, "of 5")(made.function, {"params": np.full(4, 2.0, np.float32)}, 1.0)
    assert ProgramCache(folder, "of 5")(made.function, variables, np.int8(1)).dtype == np.float32
    assert made.traced == 5 and len(list(folder.iterdir())) == 5


def test_with_other_surroundings_it_is_made_anew(folder, monkeypatch):
    made, variables = Doubled(), {"params": np.ones(3, np.float32)}
    ProgramCache(folder, "")(made.function, variables, 1.0)
    monkeypatch.setattr(program_cache, "_surroundings", lambda: "another processor")
    assert not ProgramCache(folder, "").has(made.function, variables, 1.0)
    ProgramCache(folder, "")(made.function, variables, 1.0)
    assert ProgramCache(folder, "").has(made.function, variables, 1.0) and len(list(folder.iterdir())) == 2


def test_a_program_belongs_to_all_that_it_is_made_of(folder, monkeypatch):
    variables = {"params": np.ones(3, np.float32)}

    def path():
        program_cache._surroundings.cache_clear()
        return ProgramCache(folder, "model")._path(Doubled().function, variables, (1.0,))

    before = path()
    assert path() == before
    others = set()
    for change in (
        lambda patch: patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true"),
        lambda patch: patch.setattr(program_cache, "cores", lambda: 96),
        lambda patch: patch.setattr(program_cache, "_cpu", lambda: ["model name : another"]),
        lambda patch: patch.setattr(jax, "__version__", "0.0.1"),
        lambda patch: patch.setattr(Path, "read_bytes", lambda path: b"another source"),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            others.add(path())
    jax.config.update("jax_default_matmul_precision", "highest")
    others.add(path())
    jax.config.update("jax_default_matmul_precision", None)
    assert len(others | {before}) == 7 and path() == before


@pytest.mark.parametrize("content", [b"", b"something else", None])
def test_a_damaged_file_is_made_anew(folder, content):
    made, variables = Doubled(), {"params": np.ones(3, np.float32)}
    ProgramCache(folder, "")(made.function, variables, 1.0)
    [file] = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    np.testing.assert_allclose(ProgramCache(folder, "")(made.function, variables, 1.0), np.ones(3))
    assert [path.stat().st_size for path in folder.iterdir()] == [len(whole)]


def test_what_was_not_used_for_longest_makes_room(folder, monkeypatch):
    made, variables = Doubled(), {"params": np.ones(3, np.float32)}
    files = []
    for i, name in enumerate("ab"):
        ProgramCache(folder, name)(made.function, variables, 1.0)
        files += [path for path in folder.iterdir() if path not in files]
        os.utime(files[i], (i, i))
    ProgramCache(folder, "a")(made.function, variables, 1.0)  # now by far the last one used
    monkeypatch.setattr(program_cache, "FULL", 2.5 * files[0].stat().st_size)
    ProgramCache(folder, "c")(made.function, variables, 1.0)
    assert files[0].exists() and not files[1].exists() and len(list(folder.iterdir())) == 2


def test_what_jax_had_in_its_own_cache_works(folder, model, tmp_path):
    """A program is kept only if it runs after being written and read again."""
    use_jax_cache(str(tmp_path / "jax"), 0)
    [image], expected = noise_images(1), None
    for attempt in range(3):
        readings = crnn_jax.load(model, cache=folder / str(attempt > 0)).read([image])
        expected = expected or readings
        assert readings == expected
        jax.clear_caches()
    assert any((tmp_path / "jax").iterdir())


def test_a_folder_that_is_only_read_is_of_use(folder, monkeypatch):
    made, variables = Doubled(), {"params": np.ones(3, np.float32)}
    ProgramCache(folder, "")(made.function, variables, 1.0)

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    ProgramCache(folder, "")(made.function, variables, 1.0)
    assert made.traced == 1


def test_where_nothing_can_be_written_it_is_kept_in_memory(tmp_path):
    (tmp_path / "file").touch()
    made, programs = Doubled(), ProgramCache(tmp_path / "file" / "below", "")
    for _ in range(2):
        programs(made.function, {"params": np.ones(3, np.float32)}, 1.0)
    assert made.traced == 1


def test_a_reader_reads_the_same_by_what_another_has_kept(model, reader, folder):
    images = noise_images(9)
    fitted, words = [reader.fit(image) for image in images], ["one", "two", "three"]

    def read(reader):
        return [
            reader.read(images),
            reader.read(images[:1], lexicon="english"),
            reader.choose(images[:2], words),
            [logits.tolist() for logits in reader.logits(fitted[:2])],
        ]

    expected = read(reader)
    assert read(crnn_jax.load(model, cache=folder)) == expected
    names = sorted(path.name.partition("-")[0] for path in folder.iterdir())
    assert names == ["apply", "prepare", "read_batch", "read_batch", "score_batch", "search_batch"]
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    assert read(crnn_jax.load(model, cache=str(folder))) == expected
    assert before == {path: path.stat().st_ino for path in folder.iterdir()}


def test_other_variables_are_read_with_and_on_another_device_nothing_is_kept(model, folder):
    images, cached, plain = noise_images(2), crnn_jax.load(model, cache=folder), crnn_jax.load(model)
    cached.read(images)
    other = jax.tree.map(lambda leaf: leaf[..., ::-1], plain.variables)
    cached.variables = plain.variables = other
    assert cached.read(images) == plain.read(images)
    before = sorted(folder.iterdir())
    with jax.default_device(jax.devices()[1]):
        elsewhere = Reader(plain.config, jax.device_get(other), cache=folder)
        assert elsewhere.read(images) == plain.read(images)
    assert sorted(folder.iterdir()) == before


def test_weights_that_nobody_checked_are_checked_before_a_program_is_kept(model, folder, reader):
    variables = reader.variables | {"params": reader.variables["params"] | {"more": jax.numpy.ones(3)}}
    with pytest.raises(ValueError, match="nothing in the network uses params/more"):
        Reader(reader.config, variables, cache=folder).read(noise_images(1))


def test_weights_that_are_not_the_networks_are_told_with_a_cache_too(folder, tmp_path):
    crnn_jax.load(save_small(tmp_path / "right"), cache=folder).read(noise_images(1))
    wrong = save_small(tmp_path / "wrong", replace(SMALL, lstm_features=16))
    (wrong / "config.json").write_bytes((tmp_path / "right" / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="its weights do not fit the network that its config describes"):
        crnn_jax.load(wrong, cache=folder)
