"""The bundled `tiny`: 0.8 M parameters, lower-case letters and digits, trained on nothing but rendered words.

    python experiments/train.py --config tiny

Result: in README.md and `crnn_jax/pretrained/tiny`. The bundled weights are those of the `small` of then, without its
last residual layer, after 12,000 steps more (50 minutes on one core), and averaged with those after 16,000 steps more:

    python experiments/train.py --config tiny --init small --set run.steps=12000 run.seed=14 \\
        optimizer.learning_rate=1.8e-3 optimizer.warmup_steps=200
    python experiments/train.py --config tiny --init ONE --workdir TWO --set run.steps=16000 run.seed=15 \\
        optimizer.learning_rate=1.8e-3 optimizer.warmup_steps=200
    python experiments/bundle.py TWO --average ONE --out crnn_jax/pretrained/tiny --dtype bfloat16

From the first to the second alone: IIIT5K-Words 93.5 to 93.5, SVT 76.7 to 76.3, ICDAR 2015 63.5 to 63.8, Synth90k 80.4
to 79.6; their average reads 93.7, 76.7, 64.2 and 81.4.

Before, `tiny` had no residual layers (`model.cnn=tiny`, 0.66 M parameters), and `small` has grown from it. Its weights
came from 90,000 of these steps in an earlier style (105 minutes on two CPU cores), 13,540 with `--init` at a peak of
1.5e-3, of words that were a little longer than `length_bias=2.5` draws them, 2,000 with it, 9,660 of 36,000 at 1.8e-3
(`run.seed=9`), 14,000 at 1.4e-3 after 100 of warm-up (`run.seed=10`), all of images as they are and crops of N(10, 16)
font pixels more than the ink, and, as the config is now, 16,000 at 1.8e-3 (`run.seed=11`). After these 9.2 M words
that network had learnt what it can: 15,000 steps more at the same rate (`run.seed=13`) took it from 73.5 to 73.5 % of
SVT, from 58.0 to 58.1 of ICDAR 2015, from 92.5 to 92.4 of IIIT5K-Words, from 81.0 to 82.4 of ICDAR 2003.
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig
from crnn_jax.synth.style import PHOTO


def get_config() -> Config:
    return Config(
        name="tiny",
        model=ModelConfig(charset="36", cnn="compact", normalise="contrast", lstm_features=128),
        data=DataConfig(style=PHOTO, length_bias=2.5, share_digits=0.1, share_random=0.1, share_punctuation=0.05),
        optimizer=OptimizerConfig(learning_rate=2.5e-3, warmup_steps=400, weight_decay=1e-3),
        run=RunConfig(
            steps=90000, batch_size=64, steps_per_dispatch=20, log_every=200, eval_every=2000, checkpoint_every=1000
        ),
    )
