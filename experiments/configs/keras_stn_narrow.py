"""`keras_stn` with an eighth of the channels in its convolutions, on clean print: for studies on a CPU.

    python experiments/train.py --config keras_stn_narrow

Distribution: words of up to 16 letters in 12 fonts, otherwise as in `quickstart`.
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig, StnConfig
from crnn_jax.synth.style import PLAIN


def get_config() -> Config:
    return Config(
        name="keras_stn_narrow",
        model=ModelConfig(
            charset="36",
            height=31,
            width=200,
            fit="pad",
            max_width=200,
            cnn="keras_narrow",
            lstm_features=128,
            lstm_layers=2,
            dropout=0.25,
            stn=StnConfig(kind="affine", placement="block7"),
        ),
        data=DataConfig(style=PLAIN, fonts=12, max_length=16, share_digits=0.05, share_random=0.05),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, ema_decay=0.99),
        run=RunConfig(steps=1500, batch_size=32, eval_every=500, checkpoint_every=500),
    )
