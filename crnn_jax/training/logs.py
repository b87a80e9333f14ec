"""What a run writes as it goes: metrics as JSON lines, TensorBoard events, pictures, and a progress bar."""

import json
import math
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import optax
from PIL import Image, ImageDraw
from tensorboardX import SummaryWriter
from tqdm import tqdm

from crnn_jax.charset import Charset
from crnn_jax.config import Config
from crnn_jax.data.whole import write_whole
from crnn_jax.report.rectification import draw_sheet
from crnn_jax.stn import Diagnosis, collapse

DRAWN = 12  # samples in the picture of what the STN does


class Logs:
    """The logs of a run in its workdir: metrics.jsonl, tensorboard/ and pictures/; and a bar on stderr.

    What a killed run wrote about steps after its last checkpoint, `start`, is dropped.

    Args:
        workdir: the run's folder.
        config: the run's.
        start: steps already taken.
        schedule: learning rate of a step.
        on: False in all processes but the first, which alone writes.
    """

    def __init__(self, workdir: Path, *, config: Config, start: int, schedule: optax.Schedule, on: bool = True):
        self._run, self._stn, self._schedule, self._on = config.run, config.model.stn, schedule, on
        self._charset = Charset.of(config.model.charset)
        self._window: list[dict[str, np.ndarray]] = []  # metrics of the dispatches since the last line
        self._clock: tuple[float, int] | None = None  # when the rate's measurement began, and at which step
        self._rate: float | None = None  # images/s, once measured
        self._collapsed = False  # whether the STN had, at the last line
        self._waited: float | None = None  # seconds spent waiting for words from disk since the last line
        if not on:
            return
        self._pictures = workdir / "pictures"
        self._pictures.mkdir(parents=True, exist_ok=True)
        path = workdir / "metrics.jsonl"
        _drop_lines_after(path, start)
        self._lines = path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        # A bar on a terminal; in a log file, a line each time metrics are written.
        bar = {"total": self._run.steps, "initial": start, "unit": "step", "disable": None, "dynamic_ncols": True}
        self._bar = tqdm(file=Terminal(sys.stderr), **bar)

    def train(self, metrics: dict[str, np.ndarray]) -> None:
        """Adds the metrics of a dispatch (one entry per step); every `log_every` steps writes a line of their means."""
        step = int(metrics["step"][-1])
        self._window.append(metrics)
        if self._clock is None:  # the first dispatch is mostly compilation, one after an evaluation has no start time
            self._clock = (time.perf_counter(), step)
        if step % self._run.log_every == 0:
            window = {name: np.concatenate([part[name] for part in self._window]) for name in metrics}
            self._window = []
            if self._on:
                self._write_train(step, window)

    def waited(self, seconds: float) -> None:
        """Adds time that the loop spent waiting for words from disk."""
        self._waited = (self._waited or 0.0) + seconds

    def _write_train(self, step: int, window: dict[str, np.ndarray]) -> None:
        began, first = self._clock
        if step > first:
            self._rate = (step - first) * self._run.batch_size / (time.perf_counter() - began)
        values = {name: value.mean() for name, value in window.items() if name not in ("step", "non_finite")}
        values["infeasible"] = window["infeasible"].sum()
        values["learning_rate"] = self._schedule(step - 1)
        shown = f"loss {values['loss']:.3f}, accuracy {100 * values['accuracy']:.1f} %"
        if values["infeasible"]:
            share = values["infeasible"] / (len(window["loss"]) * self._run.batch_size)
            shown += f", {100 * share:.1f} % of the words too long for the frames"
        left = ""
        if self._waited is not None:
            values["input_wait"] = self._waited / len(window["loss"])  # seconds per step
            shown += f", {1000 * values['input_wait']:.0f} ms per step waiting for words"
            self._waited = 0.0
        if self._rate is not None:
            values["images_per_second"] = self._rate
            shown = f"{self._rate:.0f} images/s, {shown}"
            left = f", {(self._run.steps - step) * self._run.batch_size / self._rate / 60:.1f} min left"
        self._scalars(step, "train", values)
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(step - self._bar.n)
        if self._bar.disable:
            self._say(f"step {step}/{self._run.steps}: {shown}{left}")
        self._watch(step, values)

    def _watch(self, step: int, values: dict) -> None:
        """Reports when the STN has collapsed, and when it has recovered."""
        names = [f"stn_{name}" for name in Diagnosis._fields]
        if names[0] not in values:
            return
        reason = collapse(Diagnosis(*(float(values[name]) for name in names)), bypass=self._stn.bypass)
        if reason and not self._collapsed:
            self._say(
                f"step {step}: the spatial transformer has collapsed: {reason}. Start again with a smaller "
                "optimizer.localisation_factor, a model.stn.bound, or a smaller model.stn.disturbance"
            )
        elif self._collapsed and not reason:
            self._say(f"step {step}: the spatial transformer has recovered")
        self._collapsed = reason is not None

    def held_out(self, step: int, values: dict[str, float], samples: dict[str, np.ndarray]) -> None:
        """Writes the scores of the held-out words, and pictures of samples.

        Args:
            step: the steps taken.
            values: the scores.
            samples: image, label and ids; with an STN also parameters, and rectified if it is in front of the CNN.
        """
        if not self._on:
            return
        self._scalars(step, "held_out", values)
        self._say(f"step {step}: {values['word_accuracy']:.1f} % of the held-out words read right")
        captions = [self._charset.decode(ids) for ids in samples["ids"]]
        self._picture(step, "samples", sheet(samples["image"], captions))
        if "rectified" in samples:
            self._picture(step, "rectified", sheet(samples["rectified"], captions))
        if "parameters" in samples:
            self._picture(step, "transformer", self._drawn(samples, captions))

    def _drawn(self, samples: dict[str, np.ndarray], captions: list[str]) -> np.ndarray:
        """What the STN does with the first samples, uint8[H,W,3]; the same words every time, to show progress."""
        truths = [self._charset.decode(ids) for ids in samples["label"][:DRAWN]]
        captions = [
            read if read == truth else f"{read or 'nothing'} for {truth}"
            for read, truth in zip(captions, truths, strict=False)
        ]
        rectified = samples["rectified"][:DRAWN] if "rectified" in samples else None
        images, parameters = samples["image"][:DRAWN], samples["parameters"][:DRAWN]
        return draw_sheet(images, parameters, captions, kind=self._stn.kind, rectified=rectified)

    def restart_clock(self) -> None:
        """Excludes the time since the last metrics (an evaluation, a checkpoint) from images/s."""
        self._clock = None

    def close(self) -> None:
        """Closes files and bar."""
        if self._on:
            self._bar.close()
            self._events.close()
            self._lines.close()

    def _scalars(self, step: int, split: str, values: dict) -> None:
        values = {name: float(value) for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def _picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Saves a picture, grey uint8[H,W] or RGB uint8[H,W,3]."""
        Image.fromarray(image).save(self._pictures / f"{name}.png")  # replaces the previous one
        self._events.add_image(name, image, step, dataformats="HWC" if image.ndim == 3 else "HW")

    def _say(self, line: str) -> None:
        tqdm.write(line, file=Terminal(sys.stderr))


class Terminal:
    """A text stream that may be closed at the other end: writing to it then does nothing.

    Ctrl-C also ends a `tee` that a run is piped into; the run must go on to save. `stream` is a text file or what a
    notebook has in its place.
    """

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes what can be written."""
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)  # what tqdm asks of it: its encoding, whether it is a terminal


def sheet(images: np.ndarray, captions: list[str], *, columns: int = 4) -> np.ndarray:
    """A contact sheet, uint8[H,W]: images uint8[B,h,w] in rows of `columns`, each above its caption."""
    count, height, width = images.shape
    cell_height, cell_width = height + 16, width + 8
    page = Image.new("L", (columns * cell_width, -(-count // columns) * cell_height), 255)
    draw = ImageDraw.Draw(page)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = (i % columns) * cell_width + 4, (i // columns) * cell_height + 2
        page.paste(Image.fromarray(np.asarray(image)), (left, top))
        draw.text((left, top + height), caption.encode("ascii", "replace").decode(), fill=0)
    return np.asarray(page)


def _drop_lines_after(path: Path, step: int) -> None:
    """Keeps the complete lines of a metrics file up to `step`; a killed process may have cut its last one short."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and _step(line) <= step]
    if kept != lines:
        write_whole(path, "".join(kept).encode())


def _step(line: str) -> int | float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # not one of our lines: dropped, not a reason to stop the run
        return math.inf
