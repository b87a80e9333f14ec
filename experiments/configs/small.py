"""The bundled `small`: 1.2 M parameters, all 94 printable characters, grown from `tiny` on nothing but rendered words.

    python experiments/train.py --config small --init tiny

That was the `tiny` of then, `model.cnn=tiny`; the bundled one of now comes from this.

Result: in README.md and `crnn_jax/pretrained/small`. The bundled weights come from 4,780 of these steps (75 minutes on
two busy CPU cores) and from more runs, each with `--init` of the one before, on one core: two of `run.steps=7000`
(`run.seed=3` and `4`, 110 and 65 minutes), the first 10,520 of `run.steps=24000` (`run.seed=5`), from that checkpoint
7,500 at `optimizer.learning_rate=1.2e-3` (`run.seed=7`, 30 minutes), and then `run.steps=26000` (`run.seed=8`, 90
minutes). These saw images as they are and crops of N(10, 16) font pixels more than the ink. As the config is now came
last the first 1,800 of `run.steps=26000` (`run.seed=9`), from that checkpoint `run.steps=8000` at a peak of 1.3e-3
(`run.seed=10`, 60 minutes together on one core of a slower machine), and `run.steps=16000` (`run.seed=12`, 105 minutes
there). After 200 steps of warm-up, but 400 in the first and 100 with the seeds 7 and 10. README.md has a curve.
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig
from crnn_jax.synth.style import PHOTO


def get_config() -> Config:
    return Config(
        name="small",
        model=ModelConfig(charset="94", cnn="small", normalise="contrast", lstm_features=128),
        data=DataConfig(style=PHOTO, length_bias=2.5, share_digits=0.1, share_random=0.1, share_punctuation=0.1),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, warmup_steps=400, weight_decay=1e-3),
        run=RunConfig(
            steps=40000, batch_size=64, steps_per_dispatch=20, log_every=200, eval_every=2000, checkpoint_every=1000
        ),
    )
