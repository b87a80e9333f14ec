"""The training loop, straight down the page."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from crnn_jax.charset import Charset
from crnn_jax.config import Config, to_json
from crnn_jax.data.sample import DatasetError
from crnn_jax.data.stream import stream
from crnn_jax.data.whole import write_whole
from crnn_jax.model import build
from crnn_jax.synth.batch import Batch
from crnn_jax.training import parallel
from crnn_jax.training.checkpoint import CheckpointError, Checkpoints, find_model, load_variables, refuse_other_run
from crnn_jax.training.logs import Logs, Terminal
from crnn_jax.training.optimizer import learning_rate, make_optimizer
from crnn_jax.training.start import save_start, started_from
from crnn_jax.training.state import create_state, variables
from crnn_jax.training.step import eval_step, mean_metrics, train_step
from crnn_jax.training.transfer import with_weights
from crnn_jax.training.words import (
    can_spell,
    fingerprint,
    load_words,
    open_sources,
    parts,
    real_held_out,
    rendered_held_out,
    streamed_rows,
    train_batch,
)

HELD_OUT_SEED = 90_000  # of the held-out words: the same for every run of one data config


class NonFiniteError(FloatingPointError):
    """A loss, gradient or parameter that is not finite; its message is one line with the step."""


def train(config: Config, workdir: Path | str, *, init: Path | str | None = None) -> dict[str, float]:
    """Trains to `config.run.steps`, or until SIGINT or SIGTERM; called again with the same workdir, it continues.

    Args:
        config: of the run. A checkpoint in the workdir must have the same one, but for `FREE_FIELDS` and words' paths.
        workdir: gets config.json, checkpoints/, metrics.jsonl, tensorboard/ and pictures/.
        init: a bundled model, a model folder or a workdir, whose weights a fresh run starts from.

    Returns:
        The metrics of the last evaluation of held-out words (`mean_metrics`), and `step`, the steps taken.

    Raises:
        NonFiniteError: with the number of the step; the last checkpoint is of a step before it.
        CheckpointError: the workdir's checkpoint is incomplete or of another run; `init` does not fit the model.
        ConfigError: the devices cannot share the batch equally.
        DatasetError, ImageError: words cannot be read; in the middle of a run, raised after its state is saved.
    """
    run, workdir = config.run, Path(workdir)
    init = None if init is None else find_model(init)
    init_key, run_key = jax.random.split(jax.random.key(run.seed))

    # Model, optimiser, and the shape of the state.
    model = build(config.model, axis_name=parallel.axis_name())
    tx = make_optimizer(config.optimizer, run.steps)
    state = create_state(init_key, model, tx, config.model)

    # Words: on the device, where a batch depends on a key and an index alone, or from disk, where it depends on the
    # seed and the step.
    size = parallel.per_device(run.batch_size, parts=parts(config))
    rows = streamed_rows(config, size)
    refuse_other_run(workdir, config)  # before reading all data, which may take minutes
    words, reports = load_words(config)
    sources, weights, kept = open_sources(config, cache=workdir / "sources", processes=run.read_processes or 1)
    if sources:
        reports += [*kept, f"of every {size} words, {rows} are read from disk and {size - rows} rendered"]
    if reports and parallel.is_main():
        print("\n".join(reports), flush=True)

    # Where a run starts, in order of precedence:
    # 1. its own last checkpoint in the workdir; a configuration other than that one's is refused;
    # 2. the weights of `init`, with a fresh optimiser, at step 0;
    # 3. fresh weights, from the run's seed.
    its_words = fingerprint(words, sources, rows=rows * jax.device_count())
    checkpoints = Checkpoints(workdir, config, words=its_words)
    fresh = checkpoints.latest is None
    note = ""
    try:
        # Hosts may have the words in different places, and different numbers of threads to read them.
        data = replace(config.data, real=(), sources=(), weights=(), validation=())
        alike = replace(config, data=data, run=replace(run, read_threads=1, read_processes=0))
        facts = checkpoints.latest, list(its_words.values()), config.data.weights, to_json(alike)
        if not parallel.is_same_everywhere(*facts):
            raise CheckpointError(
                f"{workdir}: the processes of this run have different checkpoints, words or options: "
                "all need the same ones, and a workdir on a disk that they share"
            )
        if not fresh:
            state = checkpoints.restore(state)
            before = started_from(workdir)
            if init is not None and str(Path(init).absolute()) != before:
                whence = f"the weights of {before}" if before else "fresh weights"
                note = f"resumes {workdir}, which started from {whence}: those of {init} are ignored"
        elif init is not None:
            state, note = with_weights(state, config, load_variables(init), name=init)
    except CheckpointError:
        checkpoints.close()  # else its thread would report its own end below the one-line error
        raise
    if note and parallel.is_main():
        print(note, flush=True)
    step = start = int(state.step)
    if parallel.is_main():
        write_whole(workdir / "config.json", f"{to_json(config)}\n".encode())
        if fresh:
            save_start(workdir, init)

    # The compiled functions: several steps in one dispatch, and an evaluation.
    step_fn = partial(
        train_step, model=model, tx=tx, ema_decay=config.optimizer.ema_decay, axis_name=parallel.axis_name()
    )
    dispatch = parallel.make_train(
        step_fn,
        partial(train_batch, config=config, size=size),
        batch_size=run.batch_size,
        length=run.steps_per_dispatch,
    )
    make_eval = partial(parallel.make_eval, partial(eval_step, model=model), batch_size=run.batch_size)
    evaluate = make_eval(partial(rendered_held_out, config=config, size=size), total=config.data.held_out_words)
    renders = words.held_out is None or can_spell(config)
    if words.held_out is not None:
        evaluate_real = make_eval(partial(real_held_out, size=size), total=len(words.held_out.label))
    transform = jax.jit(partial(model.apply, method="transform"))

    def score(state):
        if renders:
            sums, samples = evaluate(variables(state), words, held_out_key)
            metrics = mean_metrics(sums)
        if words.held_out is not None:  # then real words decide which checkpoint is the best
            beside = {f"rendered_{name}": value for name, value in metrics.items()} if renders else {}
            sums, samples = evaluate_real(variables(state), words, held_out_key)
            metrics = mean_metrics(sums) | beside
        if config.model.stn.kind != "none":
            made, samples["parameters"] = parallel.fetch(transform(variables(state), samples["image"]))
            samples |= {} if made is None else {"rectified": made}
        return metrics, samples

    held_out_key = jax.random.key(HELD_OUT_SEED)
    state, words, run_key, held_out_key = parallel.replicate((state, words, run_key, held_out_key))
    logs = Logs(
        workdir, config=config, start=start, schedule=learning_rate(config.optimizer, run.steps), on=parallel.is_main()
    )
    pending = None  # metrics of the last dispatch, still on the device
    # A run that was already complete only reports its scores again.
    held_out, samples = score(state) if step == run.steps else ({}, {})
    interrupted, failure, streamed = False, None, None
    feed = open_stream(sources, weights, config, rows=rows * jax.local_device_count(), start=step) if sources else None
    with Interrupt() as interrupt, closing(logs), closing(checkpoints), closing(feed) if feed else nullcontext():
        if feed and step < run.steps:
            streamed = read_dispatch(feed, run.steps_per_dispatch)
        while step < run.steps and not interrupted:
            state, metrics = dispatch(state, words, run_key, streamed)
            step += run.steps_per_dispatch
            # Metrics of one dispatch are fetched once the next is under way: the device does not wait for the host.
            if pending is not None:
                logs.train(finite(parallel.fetch(pending)))
            pending = metrics

            # While the device computes, the words of the next dispatch are read and sent to it.
            if feed and step < run.steps and not interrupt.requested:
                began = time.perf_counter()
                try:
                    streamed = read_dispatch(feed, run.steps_per_dispatch)
                except DatasetError as error:  # nothing is lost: what was learnt is saved first
                    failure = error
                logs.waited(time.perf_counter() - began)

            interrupted = parallel.any_process(interrupt.requested or failure is not None) and step < run.steps
            # Also if interrupted: the resumed run starts after this step and would never evaluate it.
            evaluating = step % run.eval_every == 0 or step == run.steps
            # What is evaluated is saved, or it could never be the best.
            saving = interrupted or evaluating or step % run.checkpoint_every == 0
            if saving:
                logs.train(finite(parallel.fetch(pending)))  # raises before a bad state is evaluated or saved
                pending = None
            if evaluating:
                held_out, samples = score(state)
                logs.held_out(step, held_out, samples)
            if saving:
                checkpoints.save(step, parallel.fetch(state), held_out if evaluating else None)
                logs.restart_clock()

    if failure is not None:
        raise failure
    if interrupted:
        last_words = [f"stopped at step {step} of {run.steps} and saved: run the same command to continue from there"]
    else:
        kind = "rendered" if words.held_out is None else "real"
        last_words = [
            report(samples, Charset.of(config.model.charset)),
            f"{held_out['word_accuracy']:.1f} % of {held_out['count']:.0f} held-out {kind} words read right",
            # The full path: the name alone may be that of a bundled model.
            f"next: python experiments/read.py IMAGE_OR_FOLDER --model {workdir.absolute()}",
        ]
    if parallel.is_main():
        print("\n".join(last_words), file=Terminal(sys.stdout))
    return held_out | {"step": step}


def open_stream(sources, weights, config: Config, *, rows: int, start: int) -> Iterator[Batch]:
    """This process's rows of the batches from step `start` on."""
    return stream(
        sources, weights, config, rows=rows, start=start, process=jax.process_index(), processes=jax.process_count()
    )


def read_dispatch(feed: Iterator[Batch], steps: int) -> Batch:
    """The batches of `steps` steps from disk, being copied to the devices."""
    return parallel.place([next(feed) for _ in range(steps)])


def finite(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics of a dispatch; raises NonFiniteError for the first step that is not finite."""
    bad = np.flatnonzero(metrics["non_finite"])
    if bad.size:
        shown = ", ".join(f"{name} {metrics[name][bad[0]]:g}" for name in ("loss", "gradient_norm", "update_norm"))
        raise NonFiniteError(f"step {int(metrics['step'][bad[0]])} is not finite: {shown}; try a lower learning rate")
    return metrics


def report(samples: dict[str, np.ndarray], charset: Charset, *, rows: int = 10) -> str:
    """A table of words read right, and one of words read wrong: truth, reading, confidence (0..1)."""
    words = [
        (charset.decode(label), charset.decode(ids), float(confidence))
        for label, ids, confidence in zip(samples["label"], samples["ids"], samples["confidence"], strict=True)
    ]
    lines = []
    for title, right in (("right", True), ("wrong", False)):
        chosen = [word for word in words if (word[0] == word[1]) == right]
        lines.append(f"read {title}: {len(chosen)} of {len(words)} samples")
        lines += [f"  {truth:<24} {read:<24} {confidence:.2f}" for truth, read, confidence in chosen[:rows]]
    return "\n".join(lines)


class Interrupt:
    """A context in which the first SIGINT or SIGTERM only sets `requested`; a second ends the process as usual."""

    def __init__(self):
        self.requested = False

    def __enter__(self):
        # Only the main thread may set handlers; elsewhere (a notebook's worker) signals keep their meaning.
        signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        self._before = {number: signal.signal(number, self._request) for number in signals}
        return self

    def __exit__(self, *_):
        self._restore()

    def _request(self, number, _frame):
        self.requested = True
        self._restore()
        with suppress(OSError, RuntimeError):  # stderr is closed, or this interrupts another write to it
            print(f"\n{signal.Signals(number).name}: saving after this dispatch ...", file=sys.stderr)

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)
