"""Calibration of the confidence: how far it is from the share of right words, and a temperature that corrects it.

Guo et al. 2017, "On Calibration of Modern Neural Networks": the expected calibration error (section 2) and temperature
scaling (section 4.2), here for the probability of a whole word rather than of one class.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from crnn_jax.data.whole import write_whole
from crnn_jax.training.checkpoint import CheckpointError, find_model, training_checkpoint, workdir_of

FILE = "calibration.json"  # in a model folder or a workdir
TEMPERATURES = ("temperature", "lexicon_temperature")  # its keys; the second is optional
LOG_TEMPERATURES = np.linspace(np.log(0.05), np.log(20), 61)  # the search grid, as the loss can have several valleys
Confidences = Sequence[float] | Float[np.ndarray, " W"]  # of W words, 0..1
Correct = Sequence[bool] | Bool[np.ndarray, " W"]  # whether each of W words was read right


class Bin(NamedTuple):
    """The words whose confidence is in one interval; without any, the means are NaN."""

    low: float  # excluded, except for 0
    high: float  # included
    count: int
    confidence: float  # their mean confidence, 0..1
    accuracy: float  # the share of them read right, 0..1


def reliability(confidences: Confidences, correct: Correct, *, bins: int = 15) -> list[Bin]:
    """The reliability table: `bins` intervals of equal width over 0..1. ValueError if the two differ in length."""
    confidences, correct = np.asarray(confidences, np.float64), np.asarray(correct, bool)
    if confidences.shape != correct.shape:
        raise ValueError(f"{confidences.size} confidences, but correct has {correct.size} values")
    which = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    table = []
    for i in range(bins):
        inside = which == i
        count = int(np.count_nonzero(inside))
        means = (float(x[inside].mean()) if count else float("nan") for x in (confidences, correct))
        table.append(Bin(i / bins, (i + 1) / bins, count, *means))
    return table


def expected_calibration_error(confidences: Confidences, correct: Correct, *, bins: int = 15) -> float:
    """The mean distance between confidence and accuracy over the reliability table, weighted by words: 0 .. 100.

    NaN without words. Guo et al. 2017, equation 3.
    """
    table = [row for row in reliability(confidences, correct, bins=bins) if row.count]
    total = sum(row.count for row in table)
    gaps = sum(row.count * abs(row.accuracy - row.confidence) for row in table)
    return 100 * gaps / total if total else float("nan")


def greedy_confidences(
    logits: Sequence[Float[np.ndarray, "_ K"]], *, temperature: float = 1.0
) -> Float[np.ndarray, " W"]:
    """The probability of each word's greedy path at softmax(logits / temperature), as in `ctc.greedy_decode`."""
    return np.exp(_log_confidence_of(logits)(temperature))


def fit_temperature(logits: Sequence[Float[np.ndarray, "_ K"]], correct: Correct) -> float:
    """The temperature T at which the probability of the greedy path at softmax(logits / T) best predicts a right word.

    Args:
        logits: of each word, [T, K], frames by classes; any number of frames.
        correct: whether each word's greedy reading is right. What is read does not depend on the temperature.

    Returns:
        The T in 0.05 .. 20 with the least mean binary cross-entropy between confidence and correctness. The search
        takes the best of a grid over log T, then refines it with SciPy's bounded minimisation (Brent).

    Raises:
        ValueError: if no word is wrong or none is right: the best temperature would be 0 or infinite.
    """
    if len(logits) != len(correct):
        raise ValueError(f"logits of {len(logits)} words, but correct has {len(correct)} values")
    return _fit(_log_confidence_of(logits), np.asarray(correct, bool))


def share_confidences(scores: Float[np.ndarray, "W M"], *, temperature: float = 1.0) -> Float[np.ndarray, " W"]:
    """The share of each word's best text at softmax(scores / temperature), as in `Lexicon.choose`."""
    return np.exp(_log_share_of(scores)(temperature))


def fit_lexicon_temperature(scores: Float[np.ndarray, "W M"], correct: Correct) -> float:
    """As `fit_temperature`, for the share of the best of M texts at softmax(scores / T); see `Lexicon.scores`."""
    if len(scores) != len(correct):
        raise ValueError(f"scores of {len(scores)} words, but correct has {len(correct)} values")
    return _fit(_log_share_of(scores), np.asarray(correct, bool))


def _fit(log_confidence: Callable[[float], np.ndarray], correct: Bool[np.ndarray, " W"]) -> float:
    """The temperature of the least cross-entropy; `log_confidence` gives every word's at a temperature."""
    if correct.all() or not correct.any():
        which = "right" if correct.size and correct.all() else "wrong"
        raise ValueError(
            f"all {correct.size} words are read {which}: fitting a temperature takes both right and wrong ones"
        )
    from scipy.optimize import minimize_scalar  # not at the top: reading, which needs no fit, starts without it

    def loss(log_temperature: float) -> float:
        log_right = np.minimum(log_confidence(np.exp(log_temperature)), -1e-9)  # a wrong word at confidence 1: 21 nats
        log_wrong = np.log(-np.expm1(log_right))
        return -float(np.mean(np.where(correct, log_right, log_wrong)))

    best = int(np.argmin([loss(x) for x in LOG_TEMPERATURES]))
    low, high = LOG_TEMPERATURES[max(best - 1, 0)], LOG_TEMPERATURES[min(best + 1, len(LOG_TEMPERATURES) - 1)]
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x))


def calibration_place(model: Path | str) -> tuple[Path, int | None]:
    """The path of a model's calibration file, and the step of its weights; `find_model` finds the model.

    The step is None for a model folder, which has only one, and for a checkpoint that was copied out of its run. Raises
    CheckpointError for a workdir without a checkpoint.
    """
    folder = find_model(model)
    if (folder / "variables").is_dir():
        return folder / FILE, None
    checkpoint = training_checkpoint(folder.absolute())
    workdir = workdir_of(checkpoint)
    return (checkpoint / FILE, None) if workdir is None else (workdir / FILE, int(checkpoint.name))


def save_calibration(folder: Path | str, calibration: dict) -> None:
    """Writes a model's calibration where `load_calibration` finds it: its "temperature" and any other entries."""
    path, step = calibration_place(folder)
    calibration = calibration if step is None else calibration | {"step": step}
    write_whole(path, (json.dumps(calibration, indent=2) + "\n").encode())


def load_calibration(folder: Path | str) -> dict | None:
    """The calibration of a model folder, a workdir or one of its checkpoints; None (temperature 1) if there is none.

    Also None if it was fitted to another checkpoint of the run. Raises CheckpointError, in one line, if it is damaged
    or a temperature is not a number above 0.
    """
    path, step = calibration_place(folder)
    if not path.exists():
        return None
    try:
        calibration = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a calibration file (delete it and fit it again): {error}") from None
    fitted = {"lexicon_temperature": 1.0} | (calibration if isinstance(calibration, dict) else {})
    for name in TEMPERATURES:
        temperature = fitted.get(name)
        if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
            raise CheckpointError(f"{path}: expected a {name} above 0, got {temperature!r}")
    return calibration if step is None or calibration.get("step", step) == step else None


def _log_confidence_of(logits: Sequence[Float[np.ndarray, "_ K"]]) -> Callable[[float], np.ndarray]:
    """The function from a temperature to the log-probability of each word's greedy path.

    The largest logit of a frame stays the largest at every temperature, so its log-probability is minus the logarithm
    of sum(exp(-gap / T)) over the gaps between the largest and every logit.
    """
    if not len(logits):
        return lambda temperature: np.zeros(0)
    starts = np.cumsum([0] + [len(frames) for frames in logits[:-1]])
    gaps = np.concatenate([frames.max(axis=1, keepdims=True) - frames for frames in logits]).astype(np.float32)

    def log_confidence(temperature: float) -> np.ndarray:
        frames = -np.log(np.sum(np.exp(gaps / np.float32(-temperature)), axis=1, dtype=np.float64))
        return np.add.reduceat(frames, starts)

    return log_confidence


def _log_share_of(scores: Float[np.ndarray, "W M"]) -> Callable[[float], np.ndarray]:
    """The function from a temperature to the logarithm of the share of each word's best text."""
    gaps = scores.max(axis=1, keepdims=True) - scores
    return lambda temperature: -np.log(np.sum(np.exp(-gaps / temperature), axis=1))
