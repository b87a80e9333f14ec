"""The bundled `tiny`: 0.8 M parameters, lower-case letters and digits, trained on rendered words alone.

    python experiments/train.py --config tiny

Result: in README.md and `crnn_jax/pretrained/tiny`. An earlier `small`, without its last residual layer, was trained
for 12,000 more steps (ONE, 50 minutes on one core), then for another 16,000 (TWO). The bundled weights average both:

    python experiments/train.py --config tiny --init small --set run.steps=12000 run.seed=14 \\
        optimizer.learning_rate=1.8e-3 optimizer.warmup_steps=200
    python experiments/train.py --config tiny --init ONE --workdir TWO --set run.steps=16000 run.seed=15 \\
        optimizer.learning_rate=1.8e-3 optimizer.warmup_steps=200
    python experiments/bundle.py TWO --average ONE --out crnn_jax/pretrained/tiny --dtype bfloat16

A single command from nothing, with `run.steps=28000` (1.8 M words), reads 92.7 % of IIIT5K-Words, 73.2 of SVT, 59.8 of
ICDAR 2015 and 77.2 of Synth90k: `experiments/studies/accuracy.md` has its curve.

From ONE to TWO accuracy went from 93.5 to 93.5 on IIIT5K-Words, 76.7 to 76.3 on SVT, 63.5 to 63.8 on ICDAR 2015 and
80.4 to 79.6 on Synth90k; their average reads 93.7, 76.7, 64.2 and 81.4.

Before that, `tiny` had no residual layers (`model.cnn=tiny`, 0.66 M parameters), and `small` was grown from it. Its
weights came from 90,000 of these steps in an earlier style (105 minutes on two CPU cores), 13,540 with `--init` at a
peak of 1.5e-3 on words slightly longer than `length_bias=2.5` draws, 2,000 with that bias, 9,660 of 36,000 at 1.8e-3
(`run.seed=9`) and 14,000 at 1.4e-3 after a warm-up of 100 (`run.seed=10`), all with `model.normalise=range` and crops
N(10, 16) font pixels larger than the ink; then 16,000 at 1.8e-3 with the config as it is now (`run.seed=11`). After
these 9.2 M words it had nothing more to learn: 15,000 more steps at the same rate (`run.seed=13`) took it from 73.5 to
73.5 % of SVT, from 58.0 to 58.1 of ICDAR 2015, from 92.5 to 92.4 of IIIT5K-Words, from 81.0 to 82.4 of ICDAR 2003.
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
