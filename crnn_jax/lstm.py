"""A bidirectional LSTM over short sequences: one scan that carries both directions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

FEW = 4  # sequences: of so few a CPU hoists the product as well


def orthogonal_gates(key: Key[Array, ""], shape: tuple[int, int, int], dtype: DTypeLike = jnp.float32) -> Array:
    """Recurrent weights of shape (directions, H, 4H) whose every gate, an H x H block, is orthogonal by itself."""
    directions, hidden, gates = shape
    keys = jax.random.split(key, directions * gates // hidden)
    # One after the other: batched QR decompositions of two layers, under jit, can block XLA's two threads for ever.
    blocks = jax.lax.map(lambda k: nn.initializers.orthogonal()(k, (hidden, hidden), dtype), keys)
    return blocks.reshape(directions, -1, hidden, hidden).swapaxes(1, 2).reshape(shape)


class BiLSTM(nn.Module):
    """Bidirectional LSTM: at frame t one half of the features sees the frames up to t, the other half those from t on.

    The cell is that of flax.linen.LSTMCell (gates i, f, g, o; zero biases, no peepholes; Hochreiter & Schmidhuber 1997
    with the forget gate of Gers et al. 2000), its weights drawn in the same way. The two directions read the sequence
    from its two ends in the same scan, their product with the weights batched over the directions. The time-reversed
    half is turned back before it is returned: features [..., H:] at frame t belong to frame t.

    Attributes:
        features: H, a direction; the output has 2 H.
        dtype: of the products (float32 or bfloat16); gates and cell state are float32 at least, parameters float32.
        unroll: scan steps in one iteration of the loop (`jax.lax.scan`).
        hoist: whether the input's product, which does not depend on the state, leaves the loop: one large product for
            all frames then, and a smaller one in the loop. None: on accelerators, and for at most FEW sequences. On a
            CPU that is the slower way for many, with as much arithmetic and more memory: forward and backward at B=64
            T=26 D=192 H=128 take 27 ms with it and 19 ms without on two cores; but the forward pass at B=1 D=512 H=256
            0.6 ms and 2.0.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    unroll: int = 1
    hoist: bool | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T {2*self.features}"]:
        hidden, depth = self.features, x.shape[-1]
        input_kernel = self.param("input_kernel", nn.initializers.lecun_normal(), (depth, 8 * hidden))
        recurrent_kernel = self.param("recurrent_kernel", orthogonal_gates, (2, hidden, 4 * hidden))
        bias = self.param("bias", nn.initializers.zeros_init(), (8 * hidden,))

        is_hoisted = jax.default_backend() != "cpu" or x.shape[0] <= FEW
        hoist = is_hoisted if self.hoist is None else self.hoist
        state_dtype = jnp.promote_types(self.dtype, jnp.float32)  # the cell state is a sum over time
        x = jnp.swapaxes(x, 0, 1).astype(self.dtype)
        kernel, bias = recurrent_kernel.astype(self.dtype), bias.astype(state_dtype)
        if hoist:
            projected = x @ input_kernel.astype(self.dtype) + bias.astype(self.dtype)[None, None]
            forward, backward = jnp.split(projected, 2, axis=-1)
        else:
            forward = backward = x
            by_direction = jnp.stack(jnp.split(input_kernel.astype(self.dtype), 2, axis=-1))
            kernel = jnp.concatenate([by_direction, kernel], axis=1)  # direction, D + H, 4H
            bias = bias.reshape(2, 1, 4 * hidden)
        inputs = jnp.stack([forward, backward[::-1]], axis=1)  # T, direction, B, 4H or D

        def product(a):
            return jnp.einsum("gba,gak->gbk", a, kernel, preferred_element_type=state_dtype)

        def step(carry, inputs_t):
            h, c = carry
            if hoist:
                gates = inputs_t.astype(state_dtype) + product(h)
            else:
                gates = product(jnp.concatenate([inputs_t, h], axis=-1)) + bias
            i, f, g, o = jnp.split(gates, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
            h = (nn.sigmoid(o) * jnp.tanh(c)).astype(self.dtype)
            return (h, c), h

        shape = (2, x.shape[1], hidden)
        start = jnp.zeros(shape, self.dtype), jnp.zeros(shape, state_dtype)
        h = jax.lax.scan(step, start, inputs, unroll=self.unroll)[1]  # T, direction, B, H
        return jnp.concatenate([h[:, 0], h[::-1, 1]], axis=-1).swapaxes(0, 1)
