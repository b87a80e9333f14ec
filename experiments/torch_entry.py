"""torch's entry in the contests of bench.py: the network of `configs/crnn.py` and its parts in torch.

Needs torch, and nothing of crnn_jax. Inputs are the arrays of an .npz file that bench.py has drawn.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from contest import serve
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Network(nn.Module):
    """The network of Shi et al. 2015, table 1, as `crnn_jax.stacks.VGG` has it, float[B, 1, 32, W] to logits [T, B, K].

    torch's LSTMs have two biases where one would do: 8 H more parameters in each bidirectional one.
    """

    def __init__(self, *, classes: int, features: int = 256, layers: int = 2):
        super().__init__()
        narrow = nn.MaxPool2d((2, 2), (2, 1), (0, 1))
        self.cnn = nn.Sequential(
            *_convolution(1, 64, norm=False),
            nn.MaxPool2d(2),
            *_convolution(64, 128, norm=False),
            nn.MaxPool2d(2),
            *_convolution(128, 256),
            *_convolution(256, 256, norm=False),
            narrow,
            *_convolution(256, 512),
            *_convolution(512, 512, norm=False),
            narrow,
            *_convolution(512, 512, kernel=2, padding=0),
        )
        depths = [512] + [features] * (layers - 1)
        self.lstms = nn.ModuleList(nn.LSTM(depth, features, bidirectional=True) for depth in depths)
        self.bridges = nn.ModuleList(nn.Linear(2 * features, features) for _ in range(layers - 1))
        self.head = nn.Linear(2 * features, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(self.cnn(images).squeeze(2).permute(2, 0, 1)))

    def recurrent(self, x: torch.Tensor) -> torch.Tensor:
        """The LSTMs, in a method of their own: torch.compile has none, and skips any function that loops over them."""
        for i, lstm in enumerate(self.lstms):
            x, _ = lstm(self.bridges[i - 1](x) if i else x)
        return x


def train(
    *,
    inputs: str,
    device: str,
    compile: bool,
    dtype: str,
    normalise: str,
    clip_norm: float,
    weight_decay: float,
    **shape,
) -> Callable[[], float]:
    """Takes training steps as `crnn_jax.training.step` does: loss, gradients, clip, AdamW, average of the parameters.

    `shape` is passed to Network. A call returns the loss.
    """
    arrays = np.load(inputs)
    network, run = _network(device=device, compile=compile, **shape)
    parameters = list(network.parameters())
    average, averages = get_ema_multi_avg_fn(0.999), [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=weight_decay, fused=True)
    images, labels = (torch.from_numpy(arrays[name]).to(device) for name in ("images", "labels"))
    lengths = torch.from_numpy(arrays["lengths"]).to(device)

    def call():
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = run(_normalise(images, normalise))
        loss = _ctc(logits.float(), labels, lengths)
        optimizer.zero_grad()
        loss.backward()
        if clip_norm > 0:
            nn.utils.clip_grad_norm_(parameters, clip_norm)
        optimizer.step()
        average(averages, parameters, 0)
        return loss.item()

    return call


def read(
    *, inputs: str, device: str, compile: bool, dtype: str, normalise: str, **shape
) -> Callable[[], list[list[int]]]:
    """Reads a batch of uint8 images greedily; a call returns the class ids."""
    images = np.load(inputs)["images"]
    network, run = _network(device=device, compile=compile, **shape)
    network.eval()

    def call():
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            paths = run(_normalise(torch.from_numpy(images).to(device), normalise)).argmax(2).T.tolist()
        return [[i for i, _ in itertools.groupby(path) if i] for path in paths]

    return call


def ctc(*, inputs: str, device: str) -> Callable[[], float]:
    """The CTC loss and its gradient for the logits; a call returns the mean loss."""
    arrays = {name: torch.from_numpy(array).to(device) for name, array in np.load(inputs).items()}
    logits = arrays["logits"].transpose(0, 1).contiguous().requires_grad_()

    def call():
        logits.grad = None
        loss = _ctc(logits, arrays["labels"], arrays["lengths"])
        loss.backward()
        return loss.item()

    return call


def lstm(*, inputs: str, device: str, features: int) -> Callable[[], float]:
    """A bidirectional LSTM, forward and backward; a call returns the sum of its output."""
    x = torch.from_numpy(np.load(inputs)["features"]).to(device).transpose(0, 1).contiguous().requires_grad_()
    layer = nn.LSTM(x.shape[2], features, bidirectional=True).to(device)

    def call():
        x.grad = None
        layer.zero_grad()
        total = layer(x)[0].sum()
        total.backward()
        return total.item()

    return call


def sampler(*, inputs: str, device: str, compile: bool, kind: str, size: list[int]) -> Callable[[], float]:
    """Grid and bilinear sampling, forward and backward to images and parameters; returns the sum of the samples."""
    arrays = {name: torch.from_numpy(array).to(device) for name, array in np.load(inputs).items()}
    images = arrays["images"].permute(0, 3, 1, 2).contiguous().requires_grad_()
    parameters = arrays[kind].requires_grad_()
    batch, (height, width) = len(images), size

    def sample(images, parameters):
        if kind == "affine":
            grid = functional.affine_grid(parameters.view(batch, 2, 3), (batch, 1, height, width), align_corners=True)
        else:  # the spline is linear in the fiducial points
            grid = torch.einsum("hwf,bfc->bhwc", arrays["spline"], parameters.view(batch, -1, 2))
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=True).sum()

    run = torch.compile(sample) if compile else sample

    def call():
        images.grad = parameters.grad = None
        total = run(images, parameters)
        total.backward()
        return total.item()

    return call


def product(*, side: int, device: str, dtype: str) -> Callable[[], None]:
    """The product of two square matrices."""
    one, other = (torch.randn(side, side, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    return lambda: _wait(one @ other)


def copy(*, numbers: int, device: str) -> Callable[[], None]:
    """A copy of float32 numbers."""
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    return lambda: _wait(target.copy_(source))


def _convolution(channels: int, features: int, *, kernel: int = 3, padding: int = 1, norm: bool = True) -> list:
    convolution = nn.Conv2d(channels, features, kernel, padding=padding, bias=not norm)
    return [convolution, *([nn.BatchNorm2d(features, momentum=0.01)] if norm else []), nn.ReLU(inplace=True)]


def _network(*, device: str, compile: bool, **shape) -> tuple[Network, Callable]:
    """The network and the function that runs it; channels last, which is 1.2 to 1.4 times as fast on a CPU."""
    network = Network(**shape).to(device, memory_format=torch.channels_last)
    return network, torch.compile(network) if compile else network


def _normalise(images: torch.Tensor, how: str) -> torch.Tensor:
    """uint8[B, H, W] to float[B, 1, H, W], as `crnn_jax.model.CRNN` does for `model.normalise`."""
    x = images[:, None].float() / 127.5 - 1
    if how == "contrast":
        x = x - x.mean((2, 3), keepdim=True)
        x = x / (x.std((2, 3), keepdim=True, correction=0) + 0.03)
    return x


def _ctc(logits: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mean CTC loss of the words, from logits [T, B, K]."""
    frames = torch.full_like(lengths, len(logits))
    log_probs = logits.log_softmax(2)
    return functional.ctc_loss(log_probs, labels, frames, lengths, reduction="none", zero_infinity=True).mean()


def _wait(result: torch.Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize()


def _device_memory() -> int | None:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in XLA
    serve(train, read, ctc, lstm, sampler, product, copy, device_memory=_device_memory)
