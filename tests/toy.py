"""Toy words and a toy network, so that tests of training take seconds; and `experiments/train.py` on them.

python tests/toy.py [--config ...]: the arguments and exit codes of experiments/train.py. The digits of a toy word are
fixed random patterns, four pixels wide.
"""

import sys

import jax
import jax.numpy as jnp
from flax import linen as nn
from small import load_script

from crnn_jax.charset import Charset
from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig
from crnn_jax.synth.batch import Batch
from crnn_jax.training import loop, words

DIGITS = "0123456789"
SLOTS = 3  # characters of a word at most


def toy_config(**run) -> Config:
    """A run of a few steps; `run` are fields of RunConfig."""
    run = {"steps": 12, "batch_size": 32, "steps_per_dispatch": 2, "log_every": 2} | run
    return Config(
        name="toy",
        model=ModelConfig(charset=DIGITS, width=40, lstm_features=8),
        data=DataConfig(max_length=SLOTS, held_out_words=40, share_digits=1.0, share_random=0.0),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=4),
        run=RunConfig(**({"eval_every": 4, "checkpoint_every": 4} | run)),
    )


class ToyNet(nn.Module):
    """Reads columns of four pixels, each by itself; it has BatchNorm, as every real network does, and no LSTM."""

    classes: int = len(DIGITS) + 1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train: bool = False):
        x = images.astype(jnp.float32) / 127.5 - 1
        batch, height, width = x.shape
        x = x.reshape(batch, height, width // 4, 4).swapaxes(1, 2).reshape(batch, width // 4, height * 4)
        x = nn.Dense(32, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name)(x))
        return nn.Dense(self.classes, name="head")(x)


def toy_model(config: ModelConfig, *, axis_name: str | None = None) -> ToyNet:
    """Replaces `crnn_jax.model.build`."""
    return ToyNet(Charset.of(config.charset).num_classes, axis_name)


def toy_source(config: Config):
    """Replaces `crnn_jax.synth.batch.load_source`: a pattern for each class, including the blank.

    None is constant: among equal pixels, rounding would decide which of them gets max pooling's gradient.
    """
    return jax.random.randint(jax.random.key(7), (len(DIGITS) + 1, 32, 4), 0, 256).astype(jnp.uint8)


def toy_words(key, source, *, batch_size: int, config: Config, first_index=0, held_out: bool = False):
    """Replaces `crnn_jax.synth.batch.synth_batch`: example i is a function of `key` and `first_index + i`."""

    def word(index):
        word_key, length_key = jax.random.split(jax.random.fold_in(key, index))
        length = jax.random.randint(length_key, (), 1, SLOTS + 1)
        label = jax.random.randint(word_key, (SLOTS,), 1, len(DIGITS) + 1) * (jnp.arange(SLOTS) < length)
        frames = jnp.zeros(config.model.width // 4, jnp.int32).at[1 : 2 * SLOTS : 2].set(label)
        return Batch(source[frames].swapaxes(0, 1).reshape(32, -1), label, length)

    return jax.vmap(word)(first_index + jnp.arange(batch_size))


def main() -> int:
    """Runs experiments/train.py with its words, network and config replaced."""
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    loop.build, words.load_source, words.synth_batch = toy_model, toy_source, toy_words
    script = load_script("train")
    script.load_config = lambda name: toy_config()
    return script.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
