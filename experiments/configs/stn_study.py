"""The network of the STN study: `tiny` behind a spatial transformer, on distorted clean print.

    python experiments/train.py --config stn_study

`experiments/stn_study.py train` trains variations of it on four kinds of the same words: straight, rotated by up to 45
degrees, in perspective and curved. The command above trains one network, on curved words.
"""

from dataclasses import replace

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig, StnConfig
from crnn_jax.synth.style import PLAIN

STRAIGHT = replace(PLAIN, rotation_std=0.0, jpeg_quality=(80.0, 0.0), soft_edges=0.5)
CURVED = replace(STRAIGHT, curve_share=1.0, curve_std=3.0)


def get_config() -> Config:
    return Config(
        name="stn_study",
        model=ModelConfig(charset="36", cnn="tiny", stn=StnConfig(kind="tps", start="disturbed")),
        data=DataConfig(style=CURVED, fonts=12, max_length=10, share_digits=0.05, share_random=0.05),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, ema_decay=0.99),
        run=RunConfig(steps=1500, batch_size=32, steps_per_dispatch=50, log_every=50, checkpoint_every=250),
    )
