"""A word that was read, and where its image is."""

from typing import NamedTuple

from crnn_jax.data.sample import Dataset, Sample
from crnn_jax.evaluation import Evaluation, Word


class Place(NamedTuple):
    """A word, and where it is: `index` is that of its image in the dataset of that name."""

    dataset: str
    index: int
    word: Word

    def sample(self, datasets: dict[str, Dataset]) -> Sample:
        """Its image and label, read once more."""
        return next(datasets[self.dataset].samples(self.index, stop=self.index + 1))


def places(evaluations: dict[str, Evaluation]) -> list[Place]:
    """All words of evaluations by the names of their datasets."""
    return [Place(name, word.index, word) for name, evaluation in evaluations.items() for word in evaluation.words]
