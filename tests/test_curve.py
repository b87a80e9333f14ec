"""experiments/curve.py: a row for every checkpoint that a run has kept, measured as evaluate.py measures it."""

import json

import jax
from small import SMALL, labelled_noise, load_script, save_small

from crnn_jax.config import Config
from crnn_jax.training.checkpoint import Checkpoints, load_variables

curve = load_script("curve")


def test_a_row_a_checkpoint(tmp_path, capsys):
    model = save_small(tmp_path / "model")
    labelled_noise(tmp_path / "data", model, 12, wrong=3)
    variables = load_variables(model)[1]
    blank = jax.tree.map(lambda leaf: 0 * leaf, variables["params"])
    checkpoints = Checkpoints(tmp_path / "run", Config(model=SMALL))
    for step, params in ((10, blank), (20, variables["params"])):
        checkpoints.save(step, {"ema_params": params, "batch_stats": variables["batch_stats"]}, None)
    checkpoints.close()
    table = tmp_path / "curve.json"
    assert curve.main([str(tmp_path / "run"), "--data", str(tmp_path / "data"), "--json", str(table)]) == 0
    size = Config().run.batch_size
    assert capsys.readouterr().out.splitlines() == [
        "| images of the run | data |",
        "|---|---|",
        f"| {10 * size:,} | 0.0 |",
        f"| {20 * size:,} | 66.7 |",
    ]
    assert [row["images of the run"] for row in json.loads(table.read_text())] == [10 * size, 20 * size]


def test_a_folder_without_checkpoints_is_told_in_one_line(tmp_path, capsys):
    assert curve.main([str(tmp_path), "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"curve.py: {tmp_path} holds no checkpoint\n"
