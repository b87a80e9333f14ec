"""Random numbers for one word, handed out one after another from one block of random bits.

Dozens of `jax.random` calls would cost seconds of compilation and one pass of threefry each; a single call for all of
a word's bits avoids both. Which bits a draw gets depends only on their order, so it is fixed when the code is traced.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32


class Draws:
    """Hands out consecutive draws from `bits`; `size=None` gives a scalar. Raises IndexError when the bits run out."""

    def __init__(self, bits: UInt32[Array, " n"]):
        self._bits, self._used = bits, 0
        # All at once, behind a barrier: fused into their uses, they would be computed, and compiled, at every use.
        unit = ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-23
        normal = math.sqrt(2) * jax.lax.erf_inv(2 * unit - 1)
        self._unit, self._normal = jax.lax.optimization_barrier((unit, normal))

    def _next(self, block, size: int | None):
        first, self._used = self._used, self._used + (size or 1)
        if self._used > block.shape[0]:
            raise IndexError(f"{self._used} random values drawn, but there are only {block.shape[0]}")
        return block[first] if size is None else block[first : self._used]

    def bits(self, size: int | None = None) -> UInt32[Array, "..."]:
        """The next raw 32-bit words."""
        return self._next(self._bits, size)

    def uniform(self, low: float = 0.0, high: float = 1.0, *, size: int | None = None) -> Float[Array, "..."]:
        """Uniform over the open interval (low, high)."""
        return low + (high - low) * self._next(self._unit, size)

    def normal(self, *, size: int | None = None) -> Float[Array, "..."]:
        """Standard normal, within about 5 standard deviations."""
        return self._next(self._normal, size)

    def chance(self, share: float) -> Array:
        """True in `share` of the draws."""
        return self.uniform() < share

    def choice(self, n: int) -> Array:
        """An integer in [0, n)."""
        return jnp.minimum((self.uniform() * n).astype(jnp.int32), n - 1)

    def gamma(self, shape: int) -> Float[Array, ""]:
        """Gamma with an integer shape and scale 1, as a sum of exponentials."""
        return -jnp.sum(jnp.log(self.uniform(size=shape)))
