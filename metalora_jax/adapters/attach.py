"""Putting adapters on a plain model, taking theta and phi apart, and putting them together again.

    model --attach(placement)--> adapted model --split--> (graph, theta, phi) --join--> adapted model --fuse--> model

All functions are pure: they return a new model, which shares the arrays of the old one, and leave the old one alone.
"""

import dataclasses
import zlib
from collections import Counter
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax import trees
from metalora_jax.adapters.adapter import LINEAR_MAPS, Adapter, AdapterParam
from metalora_jax.adapters.placement import Placement, resolve
from metalora_jax.types import PyTree

Theta = dict[str, dict[str, jax.Array]]
"""Module path -> {"a": (*layers, in, rank), "b": (*layers, rank, out)} for LoRA: a plain tree, for optax and files."""

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=nnx.Module)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Graph:
    """All of an adapted model but its arrays. Static and hashable: part of a jitted function's identity."""

    definition: nnx.GraphDef
    paths: tuple[Path, ...]  # of the adapted modules
    shapes: tuple[tuple[str, str, tuple[int, ...]], ...]  # of theta's leaves: module path, part, shape


class Split(NamedTuple):
    """An adapted model in three parts."""

    graph: Graph  # static
    theta: Theta  # learned, saved, swapped
    phi: PyTree  # frozen: nested dict of arrays


class Count(NamedTuple):
    """Sizes of theta."""

    total: int
    per_module: dict[str, int]


def linear_maps(model: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Path -> kernel shape (*layers, in, out) of every linear map that can get an adapter."""
    return {_name(path): module.kernel.shape for path, module in _linears(model)}


def attach(model: Model, placement: Placement, key: jax.Array, allow_unused: bool = False) -> Model:
    """The model with an adapter on every linear map that `placement` names.

    An adapter's start depends on the key and its own path only, not on what else is adapted.

    Args:
      model: a model with plain linear maps (see `LINEAR_MAPS`), single or stacked.
      placement: ordered rules over module paths; see `placement.resolve`.
      key: random key for the adapters' start.
      allow_unused: accept rules that match nothing.

    Raises:
      ValueError: a rule matches nothing, or a chosen map is shared, or the model has adapters already.
    """
    if _adapters(model):
        raise ValueError("the model has adapters already; fuse() them first, or attach all with one placement")
    model = nnx.clone(model)
    maps = {_name(path): (path, module) for path, module in _linears(model)}
    owners = Counter(id(child) for _, parent in nnx.iter_modules(model) for child in vars(parent).values())
    for name, rule in resolve(placement, maps, allow_unused).items():
        path, base = maps[name]
        if owners[id(base)] > 1:
            raise ValueError(f"{name}: this map is used in {owners[id(base)]} places of the model; leave it frozen")
        assert rule.kind is not None  # `resolve` leaves those out
        _put(model, path, rule.kind.adapt(base, _fold_in(key, name)))
    return model


def split(model: nnx.Module) -> Split:
    """(graph, theta, phi) of an adapted model; theta is empty where it has no adapters.

    `join(*split(model))` is the model again, and `split(join(graph, theta, phi))` the three parts, bit by bit.
    """
    adapters = dict(_adapters(model))
    if any(getattr(module, "dropout_key", None) is not None for module in adapters.values()):
        raise ValueError("the model carries dropout keys; split the one that was joined without dropout_key")
    definition, *states = nnx.split(model, AdapterParam, ...)
    theta = {
        _name(path): {part: leaf[...] for part, leaf in module.parts().items()} for path, module in adapters.items()
    }
    shapes = tuple((name, part, leaf.shape) for name, parts in theta.items() for part, leaf in parts.items())
    return Split(Graph(definition, tuple(adapters), shapes), theta, nnx.to_pure_dict(states[1]))


def join(graph: Graph, theta: Theta, phi: PyTree, dropout_key: jax.Array | None = None) -> nnx.Module:
    """The adapted model. Pure: may be called inside jit, grad, vmap (over theta alone, say) and checkpoint.

    Args:
      graph, theta, phi: as `split` gives them; theta may have other values, of any float dtype.
      dropout_key: turns the adapters' dropout on, in training. None is the deterministic model.

    Raises:
      ValueError: theta has other paths or shapes than the graph.
    """
    fits: dict[str, dict[str, jax.ShapeDtypeStruct]] = {}
    for name, part, shape in graph.shapes:
        fits.setdefault(name, {})[part] = jax.ShapeDtypeStruct(shape, jnp.float32)
    trees.check_same(theta, fits, "theta", dtypes=False)
    theta_state = nnx.from_flat_state(
        [((*path, part), leaf) for path in graph.paths for part, leaf in theta[_name(path)].items()]
    )
    model = nnx.merge(graph.definition, theta_state, phi)
    if dropout_key is not None:
        for path in graph.paths:
            _get(model, path).with_key(_fold_in(dropout_key, _name(path)))
    return model


def fuse(model: Model) -> Model:
    """The plain model with every adapter folded into its linear map.

    It computes the same as the adapted model, up to rounding of float32: folded kernels are float32 whatever the base's
    are. Where activations are bfloat16 the sum is rounded to it again, and most of a small update with it: act with the
    adapter unfused there.

    Raises:
      ValueError: an adapter has no plain map that computes the same, or a kernel is not floating point.
    """
    model = nnx.clone(model)
    for path, adapter in _adapters(model):
        try:
            fused = adapter.fused()
        except ValueError as error:
            raise ValueError(f"{_name(path)}: {error}") from None
        if fused is None:
            raise ValueError(
                f"{_name(path)}: {type(adapter).__name__} cannot be fused; act with it unfused, in lerobot by metalora "
                "export --format=lerobot_plugin"
            )
        _put(model, path, fused)
    return model


def penalty(model: nnx.Module) -> jax.Array | None:
    """The sum of the adapters' own loss terms (see `Adapter.penalty`); None where no adapter has one."""
    terms = [term for _, adapter in _adapters(model) if (term := adapter.penalty()) is not None]
    return sum(terms[1:], start=terms[0]) if terms else None


def count(theta: Theta) -> Count:
    """Number of adapter parameters, in all and for each adapted module."""
    per_module = {name: trees.count(parts) for name, parts in theta.items()}
    return Count(sum(per_module.values()), per_module)


def scaled(theta: Theta, placement: Placement, factor: float) -> Theta:
    """Theta of the policy between the base (`factor` 0) and the adapted one (1), on the line between their weights.

    What an adapter changes in its map is multiplied, not its distance from where training began: a meta-learned start,
    which changes the base already, is scaled along. Weights before and after fine-tuning are averaged so by Wortsman et
    al. 2022 (WiSE-FT, arXiv:2109.01903), and those of robot policies by Yadav et al. 2025 (RETAIN, arXiv:2512.08333).

    Args:
      theta: as `split` gives it.
      placement: the rules that theta was made by.
      factor: in [0, 1].

    Raises:
      ValueError: the factor is out of range, no rule adapts a path of theta, or its kind cannot be scaled.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor is {factor}; it must lie between 0, the base alone, and 1, the adapter as it is")
    rules, made = resolve(placement, theta, allow_unused=True), {}
    for name, parts in theta.items():
        if name not in rules or (kind := rules[name].kind) is None:
            raise ValueError(f"theta has {name!r}, which no rule of the placement adapts")
        if (found := kind.scaled(parts, factor)) is None:
            raise ValueError(f"{name}: an adapter of kind {kind.name!r} cannot be scaled; give its kind `scaled`")
        made[name] = found
    return made


def dead_adapters(gradient: Theta) -> list[str]:
    """Adapted maps that a loss does not see: exactly zero gradient in all their parts, so they can never train.

    Args:
      gradient: of the loss with respect to theta, on any one batch. Where B = 0 (LoRA's start) that of A is zero and
        that of B tells; where A and B are both zero every map looks dead.

    Returns:
      Module paths, with the layer's index where the map is stacked: "text/layers/self_attn/q_proj[15]".
    """
    dead = []
    for name, parts in gradient.items():
        largest = sum(np.abs(np.asarray(leaf)).max(axis=(-2, -1)) for leaf in parts.values())
        dead += [name + "".join(f"[{i}]" for i in layer) for layer in np.argwhere(largest == 0)]
    return dead


def _adapters(model: nnx.Module) -> list[tuple[Path, Adapter]]:
    return [(path, module) for path, module in _modules(model) if isinstance(module, Adapter)]


def _linears(model: nnx.Module) -> list[tuple[Path, nnx.Linear]]:
    return [(path, cast(nnx.Linear, module)) for path, module in _modules(model) if isinstance(module, LINEAR_MAPS)]


def _modules(model: nnx.Module) -> list[tuple[Path, nnx.Module]]:
    """(path, module) of every module, by path; an adapter's own base map is no map of the model's."""
    modules = {cast(Path, path): module for path, module in nnx.iter_modules(model)}
    return [
        (path, module)
        for path, module in sorted(modules.items(), key=lambda item: _name(item[0]))
        if not isinstance(modules.get(path[:-1]), Adapter)
    ]


def _get(model: nnx.Module, path: Path) -> Any:
    node: Any = model
    for part in path:
        node = node[part] if isinstance(part, int) else getattr(node, part)
    return node


def _put(model: nnx.Module, path: Path, module: nnx.Module) -> None:
    *parent, last = path
    owner = _get(model, tuple(parent))
    if isinstance(last, int):
        owner[last] = module
    else:
        setattr(owner, last, module)


def _name(path: Path) -> str:
    return "/".join(map(str, path))


def _fold_in(key: jax.Array, name: str) -> jax.Array:
    # A checksum, not Python's hash(): the same name must give the same numbers in every process.
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
