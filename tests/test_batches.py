"""How images are put into batches."""

import numpy as np
import pytest

from crnn_jax.batches import batches


@pytest.mark.parametrize(
    ("backend", "count", "images", "sizes"),
    [
        ("cpu", 1, 9, [8, 1]),  # not 32
        ("cpu", 1, 30, [30]),
        ("cpu", 1, 80, [32, 32, 8, 8]),
        ("cpu", 4, 64, [8] * 8),  # work for all cores
        ("cpu", 4, 128, [32] * 4),
        ("gpu", 1, 600, [256, 256, 88]),
    ],
)
def test_batches_are_cut_for_the_cores_that_there_are(monkeypatch, backend, count, images, sizes):
    monkeypatch.setattr("crnn_jax.batches.cores", lambda: count)
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    assert [len(rows) for rows in batches([np.zeros((32, 100), np.uint8)] * images)] == sizes
