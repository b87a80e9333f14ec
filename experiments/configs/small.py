"""The bundled `small`: 1.2 M parameters, all 94 printable characters, grown from `tiny` on nothing but rendered words.

python experiments/train.py --config small --init tiny
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig
from crnn_jax.synth.style import PHOTO


def get_config() -> Config:
    return Config(
        name="small",
        model=ModelConfig(charset="94", cnn="small", lstm_features=128),
        data=DataConfig(style=PHOTO, length_bias=2.5, share_digits=0.1, share_random=0.1, share_punctuation=0.1),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=400, weight_decay=1e-3),
        run=RunConfig(
            steps=40000, batch_size=64, steps_per_dispatch=20, log_every=200, eval_every=2000, checkpoint_every=1000
        ),
    )
