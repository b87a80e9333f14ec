"""A bidirectional LSTM over short sequences: one scan that carries both directions."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from crnn_jax.conv import PREPARED


def orthogonal_gates(key: Key[Array, ""], shape: tuple[int, int, int], dtype: DTypeLike = jnp.float32) -> Array:
    """Recurrent weights of shape (directions, H, 4H) in which each gate, an H x H block, is orthogonal by itself."""
    directions, hidden, gates = shape
    keys = jax.random.split(key, directions * gates // hidden)
    # One at a time: batched QR decompositions of two layers, under jit, can block XLA's two threads for ever.
    blocks = lax.map(lambda k: nn.initializers.orthogonal()(k, (hidden, hidden), dtype), keys)
    return blocks.reshape(directions, -1, hidden, hidden).swapaxes(1, 2).reshape(shape)


class BiLSTM(nn.Module):
    """Bidirectional LSTM: at frame t one half of the features sees the frames up to t, the other half those from t on.

    The cell is that of flax.linen.LSTMCell (gates i, f, g, o; zero biases, no peepholes; Hochreiter & Schmidhuber 1997
    with the forget gate of Gers et al. 2000), its weights initialised in the same way. The two directions read the
    sequence from its two ends in the same scan, with one batched product for both. The time-reversed half is turned
    back before it is returned: features [..., H:] at frame t belong to frame t.

    Attributes:
        features: H, for each direction; the output has 2 H.
        dtype: of the products (float32 or bfloat16); gates and cell state are float32 at least, parameters float32.
        unroll: scan steps per loop iteration (`jax.lax.scan`). None: 5 on a GPU, where every iteration costs a launch
            (0.91 of the time at B=512 T=26 D=512 H=256 on an H200; all 26 in one, 0.84, take long to compile).

    Applied with the collection PREPARED mutable, it stores the input kernel there in a CPU's layout (see
    `conv.prepare_kernel`); applied with that collection, it uses it.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    unroll: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T {2*self.features}"]:
        hidden, depth = self.features, x.shape[-1]
        # Flax only compares an existing kernel's shape with its initialiser's, which it traces; tracing the orthogonal
        # one is slow.
        is_there = self.has_variable("params", "recurrent_kernel")
        gates = nn.initializers.zeros if is_there else orthogonal_gates
        input_kernel = self.param("input_kernel", nn.initializers.lecun_normal(), (depth, 8 * hidden))
        recurrent_kernel = self.param("recurrent_kernel", gates, (2, hidden, 4 * hidden))
        bias = self.param("bias", nn.initializers.zeros_init(), (8 * hidden,))

        x = jnp.swapaxes(x, 0, 1).astype(self.dtype)
        unroll = self.unroll or (5 if jax.default_backend() == "gpu" else 1)
        if self.is_mutable_collection(PREPARED) and not self.is_initializing() and jax.default_backend() == "cpu":
            self.put_variable(PREPARED, "input_kernel", input_kernel.astype(self.dtype).T)
        if self.has_variable(PREPARED, "input_kernel"):
            product = jnp.einsum("kd,tbd->tbk", self.get_variable(PREPARED, "input_kernel"), x)
            h = _scan(product, recurrent_kernel, bias, unroll, _only_h)
        else:
            h = both_directions(x, input_kernel, recurrent_kernel, bias, unroll)
        return jnp.concatenate([h[:, 0], h[::-1, 1]], axis=-1).swapaxes(0, 1)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def both_directions(
    x: Float[Array, "T B D"],
    input_kernel: Float[Array, "D gates_of_both"],
    recurrent_kernel: Float[Array, "2 H gates"],
    bias: Float[Array, " gates_of_both"],
    unroll: int,
) -> Float[Array, "T 2 B H"]:
    """The states of both directions, each in the order in which it reads; see `BiLSTM`. Products are in x's dtype.

    A direction has 4 H gates. Differentiable once, in reverse mode. JAX's own gradient adds up the kernels' gradients
    frame by frame inside the loop, passing over all of them each time. Here the loop yields the gradients of the gates,
    and products after it the rest: 0.6 of the time, forward and backward, at B=32 T=26 D=512 H=256 on a CPU core, 0.8
    at B=64.
    """
    return _scan(x @ input_kernel.astype(x.dtype), recurrent_kernel, bias, unroll, _only_h)


def _only_h(h, c, gates):
    return h


def _forward(x, input_kernel, recurrent_kernel, bias, unroll):
    kept = _scan(x @ input_kernel.astype(x.dtype), recurrent_kernel, bias, unroll, lambda *frame: frame)
    return kept[0], (x, input_kernel, recurrent_kernel, *kept)


def _scan(product, recurrent_kernel, bias, unroll, keep):
    """What `keep` returns for every frame, given its state h, the cell state c before it and the gates i, f, g, o.

    The product of all frames with the input kernel does not depend on the state, so it is computed before the loop.
    """
    hidden, dtype = recurrent_kernel.shape[1], product.dtype
    state_dtype = jnp.promote_types(dtype, jnp.float32)  # the cell state is a sum over time
    kernel = recurrent_kernel.astype(dtype)
    forward, backward = jnp.split(product + bias.astype(dtype)[None, None], 2, axis=-1)
    inputs = jnp.stack([forward, backward[::-1]], axis=1)  # T, direction, B, 4H

    # The logistic function of i, f and o is (1 + tanh(x / 2)) / 2: with one function for all gates a CPU computes a
    # frame of a single word in a third of the time.
    slopes = jnp.repeat(jnp.array([0.5, 0.5, 1.0, 0.5], state_dtype), hidden)[None, None]

    def step(carry, inputs_t):
        h, c = carry
        gates = jnp.einsum("gba,gak->gbk", h, kernel, preferred_element_type=state_dtype)
        gates = inputs_t.astype(state_dtype) + gates
        gates = slopes * jnp.tanh(slopes * gates) + (1 - slopes)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        new_c = f * c + i * g
        h = (o * jnp.tanh(new_c)).astype(dtype)
        return (h, new_c), keep(h, c, gates)

    shape = (2, product.shape[1], hidden)
    start = jnp.zeros(shape, dtype), jnp.zeros(shape, state_dtype)
    return lax.scan(step, start, inputs, unroll=unroll)[1]


def _backward(unroll, residuals, dh):
    x, input_kernel, recurrent_kernel, h, c, gates = residuals
    frames, batch, depth = x.shape
    hidden, dtype, state_dtype = h.shape[-1], x.dtype, c.dtype
    kernel = recurrent_kernel.astype(dtype)

    def step(carry, frame):
        later_dh, dc = carry
        dh, c, gates = frame
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        tanh_c = jnp.tanh(f * c + i * g)
        dh = dh.astype(state_dtype) + later_dh
        dc = dc + dh * o * (1 - tanh_c**2)
        of_gates = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)
        d_gates = jnp.concatenate(of_gates, axis=-1).astype(dtype)
        earlier_dh = jnp.einsum("gbk,gak->gba", d_gates, kernel, preferred_element_type=state_dtype)
        return (earlier_dh, dc * f), d_gates

    zeros = jnp.zeros_like(c[0])
    d_gates = lax.scan(step, (zeros, zeros), (dh, c, gates), reverse=True, unroll=unroll)[1]  # T, direction, B, 4H
    d_inputs = jnp.concatenate([d_gates[:, 0], d_gates[::-1, 1]], axis=-1).reshape(-1, 8 * hidden)
    d_x = (d_inputs @ input_kernel.astype(dtype).T).reshape(x.shape)

    def over_frames(a, b):
        return jnp.matmul(a.reshape(-1, a.shape[-1]).T, b.reshape(-1, b.shape[-1]), preferred_element_type=state_dtype)

    d_input_kernel = over_frames(x, d_inputs)
    d_recurrent_kernel = jnp.stack([over_frames(h[:-1, way], d_gates[1:, way]) for way in (0, 1)])
    d_bias = d_inputs.astype(state_dtype).sum(0)
    return d_x, d_input_kernel, d_recurrent_kernel, d_bias


both_directions.defvjp(_forward, _backward)
