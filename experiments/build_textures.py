"""Rebuilds the background crops of the bank, crnn_jax/synth/assets/textures.npz.xz.

    pip install scikit-image
    python experiments/build_textures.py

Crops of the CC0 and public-domain photographs in the scikit-image wheel, most of them small and therefore smooth once
enlarged, as the background of a word usually is; and noise with a falling spectrum, half of it over a gradient. Takes
seconds.
"""

import argparse
import io
import lzma
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

ASSETS = Path(__file__).parents[1] / "crnn_jax" / "synth" / "assets"
HEIGHT, WIDTH = 40, 128
# Those that skimage.data documents as CC0 or public domain; assets/LICENSES.md has the sources.
PHOTOGRAPHS = (
    "astronaut.png brick.png camera.png chelsea.png clock_motion.png coffee.png grass.png gravel.png rocket.jpg".split()
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument(
        "--photographs", type=float, default=0.6, help="share of crops from photographs; the rest are noise"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ASSETS / "textures.npz.xz")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    data = resources.files("skimage") / "data"
    photographs = [Image.open(data / name).convert("RGB") for name in PHOTOGRAPHS]
    photographed = round(args.count * args.photographs)
    crops = [crop(photographs[i % len(photographs)], rng) for i in range(photographed)]
    crops += [noise(rng) for _ in range(args.count - photographed)]
    crops = [texture[:, :: rng.choice([1, -1])] for texture in crops]
    textures = np.clip(np.round(crops), 0, 255).astype(np.uint8) & 0xFE  # 7 bits: the last is noise, hard to compress
    stream = io.BytesIO()
    np.savez(stream, textures=textures)
    args.out.write_bytes(lzma.compress(stream.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    contrast = np.percentile(textures.std((1, 2)), [5, 25, 50, 75, 95])
    print(f"{len(textures)} crops, {args.out.stat().st_size / 1e6:.2f} MB; standard deviations {contrast.round(1)}")


def crop(photograph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """A random part of one channel or of the greyscale image, enlarged or reduced to the texture's size."""
    grey = photograph.convert("L") if rng.random() < 0.25 else photograph.getchannel(int(rng.integers(3)))
    height = rng.uniform(6, 14) if rng.random() < 0.6 else 8 + abs(rng.normal()) * 45
    height = min(height, grey.height, grey.width * HEIGHT / WIDTH)
    width = height * WIDTH / HEIGHT
    left, top = rng.uniform(0, grey.width - width), rng.uniform(0, grey.height - height)
    box = (left, top, left + width, top + height)
    return np.asarray(grey.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box), np.float32)


def noise(rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls as a power of the frequency, over a flat grey or a gradient."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1
    phases = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    field = np.fft.irfft2(phases * frequency ** -rng.uniform(1.1, 2.4), (HEIGHT, WIDTH))
    texture = (field - field.mean()) / field.std() * rng.uniform(4, 40)
    if rng.random() < 0.5:
        angle, rise = rng.uniform(0, 2 * np.pi), rng.uniform(15, 100)
        y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j] - 0.5
        texture = 0.4 * texture + rise * (x * np.cos(angle) + y * np.sin(angle))
    return texture + 128 + rng.uniform(-90, 90)


if __name__ == "__main__":
    main()
