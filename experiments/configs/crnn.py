"""The bundled `crnn`: the CRNN paper's network, 8.3 M parameters, trained on rendered words alone; for a GPU or TPU.

    python experiments/train.py --config crnn

Result: in README.md and `crnn_jax/pretrained/crnn`, the weights of this command on one H200: 5.2 M words at 44,000 to
56,000 images a second, rendering included, while other programs compiled beside it; two and a half minutes with
evaluations and checkpoints, after one to start and compile. Of the held-out words it read 64.0, 68.2, 70.1, 71.6, 72.7,
73.1 % after each 2,000 steps and 73.7 at the end: it was still learning.

On a CPU the whole command runs with fewer words: `--workdir runs/try --set run.steps=2 run.steps_per_dispatch=1
run.log_every=1 run.eval_every=2 run.checkpoint_every=2 run.batch_size=8 data.held_out_words=8`.
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig
from crnn_jax.synth.style import PHOTO


def get_config() -> Config:
    return Config(
        name="crnn",
        model=ModelConfig(
            charset="36", cnn="vgg", normalise="contrast", lstm_features=256, lstm_layers=2, dtype="bfloat16"
        ),
        data=DataConfig(style=PHOTO, length_bias=2.5, share_digits=0.1, share_random=0.1, share_punctuation=0.05),
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=600, weight_decay=1e-3),
        run=RunConfig(
            steps=13_600,
            batch_size=384,
            steps_per_dispatch=50,
            log_every=200,
            eval_every=2000,
            checkpoint_every=2000,
        ),
    )
