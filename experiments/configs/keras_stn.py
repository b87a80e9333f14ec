"""The network of CRNN-with-STN, the Keras project that this one starts from, its faults fixed; for a GPU or TPU.

    python experiments/train.py --config keras_stn

Images of 31 x 200, seven convolutions, an affine STN on the last features, two bidirectional LSTMs: 8.8 M parameters
and 13 G multiplications per image, words as in Synth90k. `crnn_jax/ancestor.py` says what was fixed, and
`experiments/ancestor_study.py` measures what each fix is worth, in a narrow network (`keras_stn_narrow`).

Not trained yet at this size: it needs an accelerator. A test traces a step of it; the whole command runs on a CPU, with
fewer words: `--workdir runs/try --set run.steps=2 run.steps_per_dispatch=1 run.log_every=1 run.eval_every=2
run.checkpoint_every=2 run.batch_size=8 data.held_out_words=8`.
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig, StnConfig
from crnn_jax.synth.style import MJSYNTH


def get_config() -> Config:
    return Config(
        name="keras_stn",
        model=ModelConfig(
            charset="36",
            height=31,
            width=200,
            fit="pad",
            max_width=200,
            cnn="keras",
            lstm_features=128,
            lstm_layers=2,
            dropout=0.25,
            dtype="bfloat16",
            stn=StnConfig(kind="affine", placement="block7"),
        ),
        data=DataConfig(style=MJSYNTH, max_length=16),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=2000, weight_decay=1e-3),
        run=RunConfig(
            steps=100_000,
            batch_size=256,
            steps_per_dispatch=50,
            log_every=200,
            eval_every=5000,
            checkpoint_every=5000,
        ),
    )
