"""A word that was read, and where its image is."""

from typing import NamedTuple

from crnn_jax.data.sample import Dataset, Sample
from crnn_jax.evaluation import Evaluation, Word


class Place(NamedTuple):
    """A word and the name of its dataset."""

    dataset: str
    word: Word

    def sample(self, datasets: dict[str, Dataset]) -> Sample:
        """Its image and label, read again."""
        return next(datasets[self.dataset].samples(self.word.index))


def places(evaluations: dict[str, Evaluation]) -> list[Place]:
    """All words of `evaluations`, which are keyed by dataset name."""
    return [Place(name, word) for name, evaluation in evaluations.items() for word in evaluation.words]
