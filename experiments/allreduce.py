"""What a data-parallel step sends, counted in its program, and how long that takes at a link's nominal rate."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


class Traffic(NamedTuple):
    """What each device all-reduces with the others in one step."""

    bytes: int
    messages: int  # all-reduces that run one after another


class Link(NamedTuple):
    """What connects the devices."""

    bytes_per_second: float  # one way
    seconds: float  # latency until the first byte arrives; assumed


# Nominal rates: fourth-generation NVLink has 900 GB/s per GPU, both directions together; networks are named by theirs.
LINKS = {
    "NVLink (H100)": Link(450e9, 2e-6),
    "400 Gb/s": Link(50e9, 5e-6),
    "10 Gb/s": Link(1.25e9, 30e-6),
}


def traffic(step: Callable, state, batch, key, *, axis: str) -> Traffic:
    """The traffic of `step(state, batch, key)` over `axis`; shapes are enough, `batch` with one device's."""
    spread = jax.pmap(step, axis, in_axes=(None, 0, None), devices=jax.local_devices()[:1])
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), batch)
    total, messages, follows = 0, 0, False
    for eqn in equations(jax.make_jaxpr(spread)(state, one, key).jaxpr):
        is_sum = "psum" in eqn.primitive.name
        total += sum(out.aval.size * jnp.dtype(out.aval.dtype).itemsize for out in eqn.outvars) if is_sum else 0
        messages += is_sum and not follows  # XLA combines adjacent ones, such as gradients
        follows = is_sum
    return Traffic(total, messages)


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All equations of a program and of the programs nested in it, each once."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr)):
            if isinstance(value, ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from equations(value)


def seconds(sent: Traffic, link: Link, *, chips: int) -> float:
    """How long the all-reduces of a step take over `chips` chips.

    The bytes are sent as in a ring, where each of N chips sends 2 (N - 1) / N of them (Patarasuk & Yuan 2009); the
    latency of a message is that of a tree over N chips, twice its depth.
    """
    ring = 2 * (chips - 1) / chips * sent.bytes / link.bytes_per_second
    return ring + sent.messages * 2 * math.ceil(math.log2(chips)) * link.seconds


def share_computing(sent: Traffic, link: Link, *, chips: int, compute: float) -> float:
    """The share, 0..1, of a step spent on its `compute` seconds of work per chip, if nothing hides the all-reduces."""
    return compute / (compute + seconds(sent, link, chips=chips))
