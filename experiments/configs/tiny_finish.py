"""The last leg of the bundled `tiny`: another 240,000 words, in a milder style, from the weights of `tiny`.

python experiments/train.py --config tiny_finish --init runs/tiny
"""

from crnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, RunConfig


def get_config() -> Config:
    return Config(
        name="tiny_finish",
        model=ModelConfig(charset="36", cnn="tiny", lstm_features=128),
        data=DataConfig(style="mixed", share_digits=0.1, share_random=0.1, share_punctuation=0.05),
        optimizer=OptimizerConfig(learning_rate=1.2e-3, warmup_steps=100, weight_decay=1e-3),
        run=RunConfig(
            steps=3800,
            batch_size=64,
            steps_per_dispatch=20,
            log_every=100,
            eval_every=1000,
            checkpoint_every=500,
            seed=1,
        ),
    )
