"""Who takes part in each contest of bench.py, with which inputs, and the minimum operations and bytes.

Inputs are drawn here, once for all contestants, and saved in a folder as .npz files.
"""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import work
from contest import Contestant, ContestError

from crnn_jax.config import Config, ModelConfig, StnConfig, to_json
from crnn_jax.data.sample import Sample
from crnn_jax.evaluation import open_datasets
from crnn_jax.sampler import identity_fiducials, tps_grid
from crnn_jax.stn import start_parameters

OURS, TORCH = "jax_entry.py", "torch_entry.py"
SIDE = {"cpu": 2048, "gpu": 8192}  # of the matrices whose product sets the ceiling for operations
STEPS = 5  # per call; the training loop also takes several per dispatch, 10 by default
COPIED = 1 << 28  # bytes whose copy sets the ceiling for memory: too many for any cache


def train(config: Config, *, batch: int, folder: Path) -> list[Contestant]:
    """Whole training steps on ready random words: as the loop takes them, and one by one."""
    inputs = _save(folder / "words.npz", **random_words(config, batch))
    needed = work.train_step(config, batch=batch)
    takes = _takes(batch, needed)
    many = _takes(STEPS * batch, needed and work.Work(*(STEPS * need for need in needed)))
    optimizer = {"clip_norm": config.optimizer.clip_norm, "weight_decay": config.optimizer.weight_decay}
    options = {"inputs": inputs, "config": to_json(config)}
    ours = [
        Contestant("crnn_jax", OURS, "train", options | {"steps": STEPS}, *many),
        Contestant("crnn_jax, step by step", OURS, "train_simply", options, *takes),
    ]
    options = {"inputs": inputs, **_torch_network(config.model), **optimizer}
    return [*ours, *(_both_torches("torch", "train", options, takes) if has_peer(config) else [])]


def read(config: Config, *, batch: int, folder: Path) -> list[Contestant]:
    """Greedy reading of images of the network's size, with random weights; in a batch and one at a time."""
    contestants = []
    for size in sorted({batch, 1}, reverse=True):
        inputs = _save(folder / f"words{size}.npz", **random_words(config, size))
        takes = _takes(size, work.read(config.model, batch=size))
        options = {"inputs": inputs, "config": to_json(config)}
        contestants.append(Contestant(f"crnn_jax, batch {size}", OURS, "read", options, *takes))
        if has_peer(config):
            options = {"inputs": inputs, **_torch_network(config.model)}
            contestants += _both_torches(f"torch, batch {size}", "read", options, takes)
    return contestants


def words(model: str, config: ModelConfig, samples: list[Sample], *, threads: int, folder: Path) -> list[Contestant]:
    """Reading of decoded word images of any size, by a model of this package and by other readers."""
    inputs = {"inputs": _save(folder / "images.npz", *(sample.image for sample in samples))}
    contestants = []
    for name, batches in (("one at a time", False), ("in batches", True)):
        takes = [None, None]
        if config.fit == "resize":  # otherwise every image has a width of its own
            # In batches the weights are read once for all words, or a few times, which adds few bytes.
            one, every = (work.read(config, batch=size) for size in (1, len(samples)))
            takes = [every.flops, every.bytes if batches else len(samples) * one.bytes] if one else takes
        options = inputs | {"model": model, "batches": batches}
        contestants.append(Contestant(f"crnn_jax {model}, {name}", OURS, "words", options, len(samples), *takes))
    of = {"script": "ocr_entry.py", "words": len(samples)}
    contestants.append(Contestant("Tesseract", task="tesseract", options=inputs, needs="tesserocr", **of))
    for name, batches in (("one at a time", False), ("in batches", True)):
        options = inputs | {"batches": batches, "threads": threads}
        of |= {"task": "pp_ocr", "needs": "rapidocr_onnxruntime"}
        contestants.append(Contestant(f"PP-OCR, {name}", options=options, **of))
    return contestants


def labelled_words(config: Config, data: str, *, count: int) -> list[Sample]:
    """The first `count` words of a dataset, or words `rendered` by a model's config, decoded. Raises DatasetError."""
    (dataset,) = open_datasets([data], config).values()
    return list(dataset.samples(stop=count))


def ctc(config: Config, *, batch: int, folder: Path) -> list[Contestant]:
    """The CTC loss alone, forward and backward."""
    frames, classes, slots = work.ctc_shape(config)
    logits = np.random.default_rng(1).normal(size=(batch, frames, classes)).astype(np.float32)
    drawn = random_words(config, batch)
    inputs = {
        "inputs": _save(folder / "ctc.npz", logits=logits, labels=drawn["labels"], lengths=drawn["lengths"]),
    }
    takes = _takes(batch, work.both_passes([work.ctc(frames, classes, slots)], batch=batch))
    torch = Contestant("torch", TORCH, "ctc", inputs | {"device": _torch_device()}, *takes, needs="torch")
    return [Contestant("crnn_jax", OURS, "ctc", inputs, *takes), torch]


def lstm(config: Config, *, batch: int, folder: Path) -> list[Contestant]:
    """The first bidirectional LSTM alone, forward and backward, in float32: torch's contestant has no other type."""
    if config.model.dtype != "float32":
        raise ContestError(
            f"lstm: model.dtype = {config.model.dtype}: expected float32, the only type of torch's contestant"
        )
    frames, depth, hidden = work.lstm_shape(config.model)
    features = np.random.default_rng(0).normal(size=(batch, frames, depth)).astype(np.float32)
    options = {"inputs": _save(folder / "lstm.npz", features=features), "features": hidden}
    takes = _takes(batch, work.both_passes([work.lstm(frames, depth, hidden)], batch=batch))
    ours = Contestant("crnn_jax", OURS, "lstm", options | {"dtype": config.model.dtype}, *takes)
    return [ours, Contestant("torch", TORCH, "lstm", options | {"device": _torch_device()}, *takes, needs="torch")]


def sampler(config: Config, *, batch: int, folder: Path) -> list[Contestant]:
    """Grid and bilinear sampling alone, forward and backward, of images as the STN in front of a network sees them."""
    stn, size = config.model.stn, (config.model.height, config.model.width)
    seen = tuple(round(side * stn.oversample) for side in size)
    rng = np.random.default_rng(0)
    arrays = {"images": rng.random((batch, *seen, 1), np.float32), "spline": _spline(stn.fiducials, size)}
    for kind in ("affine", "tps"):
        start = start_parameters(kind=kind, fiducials=stn.fiducials)
        arrays[kind] = (start + 0.05 * rng.normal(size=(batch, len(start)))).astype(np.float32)
    options, contestants = {"inputs": _save(folder / "sampler.npz", **arrays), "size": size}, []
    for kind in ("affine", "tps"):
        layer = work.sampler(StnConfig(kind=kind, fiducials=stn.fiducials), seen, size)
        takes = _takes(batch, work.both_passes([layer], batch=batch))
        contestants.append(Contestant(f"crnn_jax, {kind}", OURS, "sampler", options | {"kind": kind}, *takes))
        peer = options | {"kind": kind, "device": _torch_device()}
        contestants += _both_torches(f"torch, {kind}", "sampler", peer, takes)
    return contestants


def ceilings(dtype: str) -> list[Contestant]:
    """A large matrix product and a large copy, by each library: the faster one shows what the chip can do."""
    side = SIDE[jax.default_backend()]
    options = {"product": {"side": side, "dtype": dtype}, "copy": {"numbers": COPIED // work.WORD}}
    takes = {"product": {"flops": 2 * side**3}, "copy": {"bytes": 2 * COPIED}}
    return [
        Contestant(f"{task}, {library}", script, task, options[task] | where, **takes[task], needs=needs)
        for task in ("product", "copy")
        for library, script, where, needs in (
            ("JAX", OURS, {}, ""),
            ("torch", TORCH, {"device": _torch_device()}, "torch"),
        )
    ]


def has_peer(config: Config) -> bool:
    """Whether torch's network is that of the config: VGG without an STN, with only these `sizes` changed, and AdamW."""
    model = config.model
    sizes = ("charset", "width", "normalise", "lstm_features", "lstm_layers", "dtype")
    plain = replace(ModelConfig(cnn="vgg"), **{name: getattr(model, name) for name in sizes})
    return model == plain and config.optimizer.name == "adamw"


def _both_torches(name: str, task: str, options: dict, takes: tuple) -> list[Contestant]:
    """torch in eager mode, and compiled."""
    return [
        Contestant(name.replace("torch", label), TORCH, task, options | {"compile": compiled}, *takes, needs="torch")
        for label, compiled in (("torch", False), ("torch.compile", True))
    ]


def _torch_network(config: ModelConfig) -> dict:
    sizes = {"classes": work.classes(config), "features": config.lstm_features, "layers": config.lstm_layers}
    return {"device": _torch_device(), "dtype": config.dtype, "normalise": config.normalise, **sizes}


def _torch_device() -> str:
    """The device of the same kind as JAX's."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def _takes(count: int, needed: work.Work | None) -> tuple[int, float | None, float | None]:
    """The last fields of a Contestant."""
    return (count, *(needed or (None, None)))


def random_words(config: Config, batch: int) -> dict[str, np.ndarray]:
    """Random images, and random labels that all fit into the frames."""
    frames, classes, slots = work.ctc_shape(config)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, max(1, min(slots, frames // 2)) + 1, batch)
    labels = rng.integers(1, classes, (batch, slots)) * (np.arange(slots) < lengths[:, None])
    images = rng.integers(0, 256, (batch, config.model.height, config.model.width), np.uint8)
    return {"images": images, "labels": labels.astype(np.int32), "lengths": lengths.astype(np.int32)}


def _spline(fiducials: int, size: tuple[int, int]) -> np.ndarray:
    """`h w F`: the matrix of the thin-plate spline, in normalised coordinates: its derivative, since it is linear."""

    def grid(points):
        return tps_grid(points, out_size=size, in_size=(3, 3))  # 3 pixels: the outer ones are 1 from the centre

    return np.asarray(jax.jacfwd(grid)(identity_fiducials(fiducials))[..., 0, :, 0])


def _save(path: Path, *arrays: np.ndarray, **named: np.ndarray) -> str:
    np.savez(path, *arrays, **named)
    return str(path)
