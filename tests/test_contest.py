"""The contests of experiments/bench.py: their processes, what the entries compute, how the work is counted."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import EXPERIMENTS

from crnn_jax.cnn import layer_size
from crnn_jax.config import Config, ModelConfig, StnConfig, override
from crnn_jax.conv import library_conv
from crnn_jax.model import build, count_parameters
from crnn_jax.stacks import ConvLayer

sys.path.insert(0, str(EXPERIMENTS))  # kept there: each entry is imported when it is run
import contest
import jax_entry
import lineup
import work
from train import load_config

TINY = Config(model=ModelConfig(lstm_features=8))
SCRIPT = """
import sys, time
from contest import ContestError, serve

def count(first, failing=0):
    calls = []
    def call():
        print("chatter")
        calls.append(time.sleep(0 if calls else first))
        if len(calls) == failing:
            raise ValueError("two\\nlines")
        if len(calls) == -failing:
            sys.exit("gone")
        return len(calls)
    return call

def nothing():
    raise ContestError("nothing to do")

serve(count, nothing)
"""


@pytest.fixture
def contestant(tmp_path, monkeypatch):
    """Makes contestants that count their calls."""
    (tmp_path / "counter.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(EXPERIMENTS))

    def make(name, task="count", needs="", **options):
        return contest.Contestant(name, str(tmp_path / "counter.py"), task, options, needs=needs)

    return make


def test_contestants_take_turns_and_those_who_cannot_are_left_out(contestant):
    contestants = [
        contestant("slow", first=0.2),
        contestant("missing", needs="no_such_module"),
        contestant("idle", task="nothing", needs="json"),
        contestant("failing", needs="json", first=0, failing=1),
        contestant("quitting", needs="json", first=0, failing=-2),
        contestant("quick", first=0),
    ]
    results, left_out = contest.hold(contestants, threads=1, rounds=3, seconds=0)
    assert [result.contestant.name for result in results] == ["slow", "quick"]
    # The first call, another to warm up, and two per round, of which one counts.
    assert [(result.answer, len(result.seconds)) for result in results] == [(8, 3), (8, 3)]
    assert results[0].first_call > 0.2 > results[1].first_call and max(results[0].seconds) < 0.2
    assert all(1e6 < result.memory < 1e8 for result in results), "of their own, not of who started them"
    assert left_out == {
        "missing": "no_such_module is not installed: pip install -e '.[peers]'",
        "idle": "nothing to do",
        "failing": "ValueError: two lines",
        "quitting": "its process ended: gone",
    }


def test_one_that_fails_midway_or_is_no_peer_ends_the_contest(contestant):
    for failing in (1, 3, -4):
        with pytest.raises(contest.ContestError, match="^ours: "):
            contest.hold([contestant("ours", first=0, failing=failing)], threads=1, rounds=3, seconds=0)


@pytest.mark.parametrize("kernel", [(3, 3), (2, 2), (1, 1), (2, 3)])
@pytest.mark.parametrize("padding", [None, (0, 0), (0, 1)])
def test_operations_of_a_convolution_are_those_that_xla_counts(kernel, padding):
    layer, size = ConvLayer(7, kernel, padding=padding), (6, 9)
    counted = work.convolution(layer, size, 5)
    padding = padding or (kernel[0] // 2, kernel[1] // 2)

    def convolve(x, kernel):
        return library_conv(x, kernel, strides=(1, 1), padding=padding)

    lowered = jax.jit(convolve).lower(jnp.zeros((1, *size, 5)), jnp.zeros((*kernel, 5, 7)))
    assert counted.flops == lowered.cost_analysis()["flops"]
    out = layer_size(layer, size)
    assert counted[1:] == (6 * 9 * 5, out[0] * out[1] * 7, kernel[0] * kernel[1] * 5 * 7 + 2 * 7)


@pytest.mark.parametrize("name", ["crnn", "tiny", "small", "stn_crnn", "block"])
def test_weights_are_those_of_the_network(name):
    block = Config(model=ModelConfig(stn=StnConfig(kind="affine", placement="block2", features=(8,))))
    config = (block if name == "block" else load_config(name)).model
    images = jax.ShapeDtypeStruct((1, config.height, config.width), np.uint8)
    shapes = jax.eval_shape(build(config).init, jax.random.key(0), images)
    assert sum(layer.weights for layer in work.network(config)) == count_parameters(shapes)


def test_operations_of_the_whole_network():
    """`crnn` by hand: along an axis of n pixels the positions of a window of three cover 3 n - 2 pixels in all."""
    pairs = [(94 * 298, 1 * 64), (46 * 148, 64 * 128), (22 * 73, 128 * 256 + 256 * 256)]
    pairs += [(10 * 76, 256 * 512 + 512 * 512), (2 * 52, 512 * 512)]
    pairs += [(26, 2048 * (512 + 256) + 2048 * (256 + 256) + 512 * 256 + 512 * 37)]
    forward = 2 * sum(a * b for a, b in pairs)
    config = load_config("crnn")
    assert work.read(config.model, batch=3).flops == 3 * forward
    assert work.train_step(config, batch=3).flops == 9 * forward
    plain = override(config, ["model.dtype=float32"])
    assert work.train_step(plain, batch=1).bytes > 4 * (3 + 9) * 8_325_925 > 4 * 3 * 8_325_925
    assert work.network(load_config("keras_stn").model) is None


@pytest.mark.parametrize("what", ["train", "read", "ctc", "lstm", "sampler"])
def test_this_package_does_its_task(what, tmp_path, monkeypatch):
    monkeypatch.setattr(lineup, "STEPS", 2)
    batch = 32 if what == "train" else 2  # four words for each of the eight devices
    contestants = getattr(lineup, what)(TINY, batch=batch, folder=tmp_path)
    for contestant in (one for one in contestants if not one.needs):
        call = getattr(jax_entry, contestant.task)(**contestant.options)
        first, second = call(), call()
        assert contestant.flops > 0 and contestant.bytes > 0 and contestant.words in (1, batch, 2 * batch)
        if what == "read":
            assert first == second and len(first) == contestant.words
        else:
            assert isinstance(first, float) and np.isfinite([first, second]).all()
            assert (first != second) == (what == "train"), "only training changes what it computes"


def test_ceilings_are_measured(monkeypatch):
    monkeypatch.setattr(lineup, "SIDE", {"cpu": 8})
    monkeypatch.setattr(lineup, "COPIED", 64)
    ours = [one for one in lineup.ceilings("float32") if not one.needs]
    assert [(one.task, one.flops, one.bytes) for one in ours] == [("product", 1024, None), ("copy", None, 128)]
    assert [getattr(jax_entry, one.task)(**one.options)() for one in ours] == [None, None]


def test_only_the_papers_network_has_a_peer():
    crnn = load_config("crnn")
    assert lineup.has_peer(override(crnn, ["model.dtype=float32", "model.charset=94", "model.lstm_layers=1"]))
    assert lineup.has_peer(override(crnn, ["model.normalise=range"]))
    for change in ("model.stn.kind=tps", "model.cnn=tiny", "model.dropout=0.1", "optimizer.name=sgd"):
        assert not lineup.has_peer(override(crnn, [change]))


def to_torch(network, variables):
    """Gives torch's network the weights of this package's."""
    import torch
    from torch import nn

    def put(target, array):
        assert target.shape == array.shape
        target.data = torch.from_numpy(np.array(array))

    params, layers = variables["params"], [layer for layer in network.cnn if hasattr(layer, "weight")]
    for i in range(1, 6):
        block, statistics = params[f"block{i}"], variables["batch_stats"].get(f"block{i}", {})
        norms = 0
        for j in range(2 if i in (3, 4) else 1):
            convolution, weights = layers.pop(0), block[f"Conv_{j}"]
            put(convolution.weight, weights["kernel"].transpose(3, 2, 0, 1))
            if "bias" in weights:
                put(convolution.bias, weights["bias"])
            if layers and isinstance(layers[0], nn.BatchNorm2d):
                norm, name = layers.pop(0), f"BatchNorm_{norms}"
                norms += 1
                put(norm.weight, block[name]["scale"])
                put(norm.bias, block[name]["bias"])
                put(norm.running_mean, statistics[name]["mean"])
                put(norm.running_var, statistics[name]["var"])
    assert not layers
    for i, lstm in enumerate(network.lstms, start=1):
        weights = params[f"lstm{i}"]
        for half, suffix in enumerate(("", "_reverse")):
            gates = slice(half * 4 * lstm.hidden_size, (half + 1) * 4 * lstm.hidden_size)
            put(getattr(lstm, f"weight_ih_l0{suffix}"), weights["input_kernel"][:, gates].T)
            put(getattr(lstm, f"weight_hh_l0{suffix}"), weights["recurrent_kernel"][half].T)
            put(getattr(lstm, f"bias_ih_l0{suffix}"), weights["bias"][gates])
            nn.init.zeros_(getattr(lstm, f"bias_hh_l0{suffix}"))
    for name, linear in (("bridge1", network.bridges[0]), ("head", network.head)):
        put(linear.weight, params[name]["kernel"].T)
        put(linear.bias, params[name]["bias"])


@pytest.mark.parametrize("normalise", ["range", "contrast"])
def test_torchs_network_is_the_same(normalise):
    torch = pytest.importorskip("torch")
    import torch_entry

    model = build(override(load_config("crnn"), ["model.dtype=float32", f"model.normalise={normalise}"]).model)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 100), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)

    def draw(path, leaf):
        if "kernel" in path[-1].key:
            return np.float32(rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape))
        return np.float32(rng.uniform(0.5, 1.5, leaf.shape))  # so that no norm is the identity

    variables = jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes))
    network = torch_entry.Network(classes=37).eval()
    to_torch(network, variables)
    with torch.inference_mode():
        theirs = network(torch_entry._normalise(torch.from_numpy(images), normalise))
    assert theirs.shape == (26, 2, 37)
    ours = model.apply(variables, jnp.asarray(images))
    np.testing.assert_allclose(theirs.transpose(0, 1), ours, atol=1e-3 * float(jnp.abs(ours).max()))
    biases = 2 * 2 * 4 * 256  # two layers, two directions, four gates: torch has two biases for each
    assert sum(p.numel() for p in network.parameters()) == count_parameters(variables) + biases == 8_330_021


@pytest.mark.parametrize("what", ["ctc", "sampler"])
def test_torchs_parts_compute_the_same(what, tmp_path):
    pytest.importorskip("torch")
    import torch_entry

    by_name = {one.name: one for one in getattr(lineup, what)(TINY, batch=3, folder=tmp_path)}
    for name, theirs in by_name.items():
        if theirs.needs and not theirs.options.get("compile"):
            ours = by_name[name.replace("torch", "crnn_jax")]
            values = [
                getattr(entry, one.task)(**one.options)() for entry, one in ((jax_entry, ours), (torch_entry, theirs))
            ]
            assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("what", ["train", "read", "lstm"])
def test_torch_does_its_task(what, tmp_path):
    pytest.importorskip("torch")
    import torch_entry

    config = override(load_config("crnn"), ["model.dtype=float32", "model.lstm_features=4", "model.lstm_layers=1"])
    contestants = getattr(lineup, what)(config, batch=2, folder=tmp_path)
    for one in (one for one in contestants if one.needs and not one.options.get("compile")):
        answer = getattr(torch_entry, one.task)(**one.options)()
        assert len(answer) == one.words if what == "read" else np.isfinite(answer)


def test_ready_made_readers_read(tmp_path, monkeypatch):
    import ocr_entry
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (150, 40), 240)
    ImageDraw.Draw(image).text((10, 2), "hello", fill=20, font=ImageFont.load_default(28))
    inputs = lineup._save(Path(tmp_path, "images.npz"), *[np.array(image)] * 2)
    readers = 0
    if contest.find_spec("rapidocr_onnxruntime"):
        readers += 1
        for batches in (False, True):
            assert ocr_entry.pp_ocr(inputs=inputs, batches=batches, threads=1)() == ["hello"] * 2
    if contest.find_spec("tesserocr"):
        readers += 1
        try:
            assert ocr_entry.tesseract(inputs=inputs)() == ["hello"] * 2
        except contest.ContestError as error:
            assert "TESSDATA_PREFIX" in str(error)
    if not readers:
        pytest.skip("no peer is installed")
