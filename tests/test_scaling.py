"""experiments/scaling.py: what a step sends is counted, its time is a formula, and devices share a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from small import load_script
from toy import toy_config, toy_model, toy_source, toy_words

from crnn_jax.config import override, to_json
from crnn_jax.training.state import create_state


@pytest.fixture
def scaling():
    """The script."""
    return load_script("scaling")


def test_what_a_step_sends_is_counted_in_its_program(scaling):
    def step(state, batch, key):
        @jax.checkpoint  # a program within the program
        def mean(x):
            return lax.pmean(x.mean(0), "chips")

        centred = batch - mean(batch)[None]
        return lax.psum((state * centred.sum(), jnp.float16(1)), "chips")  # two leaves, one after the other: joined

    state = jax.ShapeDtypeStruct((5, 6), "float32")
    sent = scaling.traffic(step, state, jax.ShapeDtypeStruct((2, 3), "float32"), jax.random.key(0), axis="chips")
    assert sent == (4 * 3 + 4 * 30 + 2, 2)


def test_a_step_sends_its_gradients_and_statistics(scaling):
    config = scaling.load_config("quickstart")
    model, tx = scaling.build(config.model), scaling.make_optimizer(config.optimizer, 10)
    state = jax.eval_shape(lambda key: create_state(key, model, tx, config.model), jax.random.key(0))
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    statistics = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.batch_stats))
    # BatchNorm's sums forward, and those of their gradients backward; besides these, the counts of the metrics.
    beside = scaling.step_traffic(config).bytes - gradients - 2 * statistics
    assert 0 < beside < 100


def test_the_time_that_a_ring_takes(scaling):
    sent, link = (
        scaling.Traffic(bytes=1000, messages=3),
        next(iter(scaling.LINKS.values()))._replace(bytes_per_second=100.0, seconds=0.5),
    )
    seconds = 2 * 7 / 8 * 10 + 3 * 2 * 3 * 0.5
    assert scaling.share_computing(sent, link, chips=8, compute=seconds) == pytest.approx(0.5)
    table = scaling.on_paper(sent, rate=1000, batch=4).splitlines()
    assert len(table) == 4 + len(scaling.CHIPS)
    shares = np.array([[int(cell) for cell in line.split("|")[2:-1]] for line in table[4:]])
    assert (np.diff(shares, axis=0) <= 0).all() and (shares <= 100).all()
    assert (shares[2, ::2] == shares[2, 1::2]).all(), "eight chips share what eight have"


def test_a_run_takes_its_steps_on_all_devices(scaling, monkeypatch):
    config = override(toy_config(), ["run.batch_size=32"])
    monkeypatch.setattr(scaling, "build", toy_model)
    monkeypatch.setattr(scaling, "load_words", lambda config: (toy_source(config), []))

    def words(key, source, first_index, *, streamed, config, size):
        return toy_words(key, source, batch_size=size, config=config, first_index=first_index)

    monkeypatch.setattr(scaling, "train_batch", words)
    assert jax.device_count() == 8
    result = scaling.work(config=to_json(config), steps=40, processes=1, coordinator="", process=0)
    assert len(result["losses"]) == 40 and result["losses"][-1] < result["losses"][0]
    assert result["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--steps", "3"], "--steps must be even"),
        (["paper", "--rate", "0"], "--rate must be above 0"),
        (["run", "--devices", "2", "--steps", "2", "--set", "run.batch_size=12"], "with 2 devices it must be a mul"),
    ],
)
def test_what_cannot_be_measured(scaling, capsys, arguments, message):
    assert scaling.main(arguments) == 1
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1
