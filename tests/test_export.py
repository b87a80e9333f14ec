"""A model as a file that JAX alone runs: it reads what the Reader reads."""

import sys
from dataclasses import replace
from subprocess import run

import numpy as np
import pytest
from small import SMALL, load_script, noise_images, save_small

import crnn_jax
from crnn_jax.config import StnConfig
from crnn_jax.export import export_program

export = load_script("export")
# What a user does who has the file but not crnn_jax.
USE = """
import sys
import jax, jax.export
import numpy as np

program = jax.export.deserialize(open(sys.argv[1], "rb").read())
images = np.load(sys.argv[2])
characters, confidences = program.call(images)
for row, confidence in zip(np.asarray(characters), np.asarray(confidences)):
    print("".join(map(chr, row)).rstrip("\\0"), float(confidence))
print(program.platforms, [name for name in ("crnn_jax", "flax", "orbax") if name in sys.modules])
"""


def used(program, images, folder) -> list[str]:
    np.save(folder / "images.npy", images)
    done = run([sys.executable, "-c", USE, program, folder / "images.npy"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", ["none", "tps"])
def test_the_file_reads_without_the_package(tmp_path, capsys, kind):
    stn = StnConfig(kind=kind, fiducials=6, features=(4, 4), bound=0.3)
    model, file = (
        save_small(tmp_path / "model", replace(SMALL, stn=stn, charset="abcxyzäöü019")),
        tmp_path / "model.bin",
    )
    reader = crnn_jax.load(model)
    arguments = ["--model", str(model), "--out", str(file), "--batch", "3", "--platforms", "cpu", "cuda", "tpu"]
    assert export.main(arguments) == 0
    size = f"{file.stat().st_size / 1e6:.1f} MB"
    assert capsys.readouterr().out == f"{file}: {size}; images uint8[3, 32, 100], grey, stretched\n"
    images = np.stack([reader.fit(image) for image in noise_images(3)])
    *rows, told = used(file, images, tmp_path)
    assert told == "('cpu', 'cuda', 'tpu') []"
    expected = reader.read_fitted(list(images))
    assert [row.split(" ")[0] for row in rows] == [text for text, _ in expected]
    assert any(not text.isascii() for text, _ in expected)
    found = [float(row.split(" ")[1]) for row in rows]
    np.testing.assert_allclose(found, [confidence for _, confidence in expected], rtol=1e-3)


def test_what_cannot_be_exported_is_told(tmp_path, capsys):
    reader = crnn_jax.load(save_small(tmp_path / "model"))
    padded = crnn_jax.load(save_small(tmp_path / "padded", replace(SMALL, fit="pad", max_width=300)))
    assert len(export_program(padded, width=200)) > 1000
    for of, options, message in (
        (reader, {"batch": 0}, "batch = 0: expected at least one image"),
        (reader, {"width": 200}, "width = 200: expected 100"),
        (padded, {"width": 250}, "width = 250: expected 100 or 200 or 300"),
        (reader, {"platforms": ["cpu", "gpu"]}, "platforms gpu: expected any of cpu, cuda, rocm, tpu"),
    ):
        with pytest.raises(ValueError, match=message):
            export_program(of, **options)
    for model, out, message in (
        ("none", "x", "none is neither a folder nor a bundled model"),
        (tmp_path / "model", tmp_path / "no" / "x", "No such file"),
    ):
        assert export.main(["--model", str(model), "--out", str(out)]) == 1
        assert message in capsys.readouterr().err


def test_without_flatbuffers_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    model = save_small(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    assert export.main(["--model", str(model), "--out", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.endswith(": pip install -e '.[export]'\n") and not (tmp_path / "x").exists()
