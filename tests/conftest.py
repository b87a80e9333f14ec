"""How the tests run: eight CPU devices, warnings are errors, and a rank that is promoted silently is one too."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
