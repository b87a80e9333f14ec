"""The bundled `tiny_real`: `tiny` fine-tuned on photographs, half of every batch, the rest rendered as before.

    python experiments/train.py --config tiny_real --init tiny --set data.real=FOLDER,FOLDER

FOLDERs: the training splits of IIIT5K-Words, ICDAR 2003, Street View Text and ICDAR 2015, or words of your own, as
evaluate.py takes them. The last tenth of each is never trained on. The bundled weights are the mean of two runs that
began with the `tiny` before its last 16,000 steps: the first 4,000 of these steps, and all of them, on one CPU core
17 minutes and, beside much other work, 45. They read 70.4 and 70.6 % of IC15's last tenth, their mean 71.1, `tiny`
66.6.
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig
from crnn_jax.synth.style import PHOTO


def get_config() -> Config:
    return Config(
        name="tiny_real",
        model=ModelConfig(charset="36", cnn="compact", normalise="contrast", lstm_features=128),
        data=DataConfig(
            style=PHOTO, length_bias=2.5, share_digits=0.1, share_random=0.1, share_punctuation=0.05, share_real=0.5
        ),
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=100, weight_decay=1e-3),
        run=RunConfig(
            steps=6000, batch_size=64, steps_per_dispatch=20, log_every=100, eval_every=1000, checkpoint_every=1000
        ),
    )
