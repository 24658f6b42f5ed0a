"""Pytrees of a training: their leaves by names, their precision, and random numbers by keys.

Promises: what was saved by names comes back into a pytree of the same structure, or is refused
with what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from ...base.errors import GradlabError
from .. import keyed, weights

Tree = TypeVar("Tree")
Named = dict[str, Any]  # the leaves of a pytree by their paths
# What safetensors calls otherwise than NumPy, or NumPy has only by the name that JAX gives it.
TYPES = {"BOOL": "bool", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
KINDS = {"F": "float", "I": "int", "U": "uint", "C": "complex"}


def named(tree: Any) -> Named:
    """Give the leaves of a pytree by their paths, such as layers.0.kernel.

    Raises GradlabError where two paths give the same name.
    """
    paths = [(_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
    found = dict(paths)
    if len(found) < len(paths):
        twice = {name for name, _ in paths if [each for each, _ in paths].count(name) > 1}
        raise GradlabError(
            f"Two arrays have the same name, {' and '.join(sorted(twice))}: give their modules "
            "names without dots, and keys that are not alike as texts."
        )
    return found


def filled(tree: Tree, leaves: Mapping[str, Any]) -> Tree:
    """Give a pytree as another one, with the leaves of these names in it."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    found = [leaves[_name(path)] for path, _ in paths]
    made: Tree = jax.tree.unflatten(structure, found)
    return made


def forms(tree: Tree) -> Tree:
    """Give a pytree with shape and dtype in the place of each array."""
    empty: Tree = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)
    return empty


def _name(path: Sequence[Any]) -> str:
    # What holds a single value, as a variable of Flax does, has no name of its own for it.
    steps = [each for each in path if getattr(each, "name", "") != "value"]
    known = ("key", "name", "idx")
    return ".".join(
        str(next(getattr(s, attr) for attr in known if hasattr(s, attr))) for s in steps
    )


def copies(tree: Tree) -> Tree:
    """Give a pytree with NumPy's arrays in memory of their own."""
    copied: Tree = jax.tree.map(np.array, jax.device_get(tree))
    return copied


def fitting(saved: Named, made: Named, source: object) -> Named:
    """Give saved weights in the order of those made now; GradlabError where they don't fit."""
    weights.compare(saved, made, source, set())
    return {name: saved[name] for name in made}


def restored(optimizer: Tree, saved: Named) -> Tree:
    """Give an optimizer's state as it was saved; GradlabError where that is another one's."""
    weights.compare_optimizer(saved, named(optimizer))
    return filled(optimizer, saved)


def refuse_altered(before: Named, after: Named) -> None:
    """Raise GradlabError where a forward pass leaves a model with other arrays than it had."""
    then, now = (
        {name: (leaf.shape, leaf.dtype) for name, leaf in state.items()}
        for state in (before, after)
    )
    if then != now:
        other = sorted(name for name in then | now if then.get(name) != now.get(name))
        raise GradlabError(
            f"The forward pass of the model changes what it is made of: {', '.join(other[:8])}. "
            "Let __init__ make each variable, with the shape and type that it keeps."
        )


def load(data: bytes) -> Named:
    """Give the arrays of a file of safetensors, as NumPy's, by their names."""
    return {name: _array(view) for name, view in safetensors.deserialize(data)}


def _array(view: Any) -> Any:
    name = str(view["dtype"])
    letters = name.rstrip("0123456789")
    dtype = TYPES.get(name) or f"{KINDS[letters]}{name.removeprefix(letters)}"
    return np.frombuffer(view["data"], dtype).reshape(view["shape"]).copy()


def parts(batch: Any, count: int) -> Any:
    """Give a batch with a new first axis, of its parts: each has every count-th example.

    So each device has its share of each part, and none has to be sent to another.
    """
    return jax.tree.map(lambda a: a.reshape(-1, count, *a.shape[1:]).swapaxes(0, 1), batch)


def key(*names: int | str) -> jax.Array:
    """Give the key of random numbers that belongs to a seed and what it is for."""
    value = keyed.key(*names)
    halves = np.array([value >> 32, value & 0xFFFFFFFF], np.uint32)
    made: jax.Array = jax.random.wrap_key_data(jnp.asarray(halves), impl="threefry2x32")
    return made


def reseeded(streams: Tree, key: jax.Array) -> Tree:
    """Give streams of random numbers, keys and counters, as if each began anew from a key.

    Those of different places are different.
    """
    leaves, structure = jax.tree.flatten(streams)

    def fresh(number: int, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros_like(leaf)
        own = jax.random.fold_in(key, number)
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    begun: Tree = jax.tree.unflatten(structure, [fresh(*each) for each in enumerate(leaves)])
    return begun


def cast(tree: Tree, precision: str) -> Tree:
    """Give a pytree with its float32 arrays in the precision."""
    if precision != "bf16":
        return tree
    lower: Tree = jax.tree.map(
        lambda a: a.astype(jnp.bfloat16) if a.dtype == jnp.float32 else a, tree
    )
    return lower


def full(tree: Tree) -> Tree:
    """Give a pytree with what has less precision than float32 in that."""

    def float32(array: Any) -> Any:
        small = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
        return array.astype(jnp.float32) if small else array

    raised: Tree = jax.tree.map(float32, tree)
    return raised
