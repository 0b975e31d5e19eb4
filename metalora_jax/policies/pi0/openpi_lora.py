"""openpi's LoRA leaves as an adapter: the same function, on a plain base.

openpi keeps factors for each head, each of key and value, and each of the two gates. Here a linear map has one pair, so
the heads' factors stand side by side in A and as blocks on the diagonal in B; the rank is the number of heads times
openpi's:

    q_einsum        A (L, N, D, r), B (L, N, r, H)        q_proj            A (L, D, N * r), B (L, N * r, N * H)
    kv_einsum       A (L, 2, K, D, r), B (L, 2, K, r, H)  k_proj, v_proj    A (L, D, K * r), B (L, K * r, K * H)
    attn_vec_einsum A (L, N, H, r), B (L, N, r, D)        o_proj            A (L, N * H, r), B (L, r, D)
    gating_einsum   A (L, 2, D, r), B (L, 2, r, F)        gate_proj, up_proj
    linear          A (L, F, r), B (L, r, D)              down_proj

Three habits of openpi's code are kept, since checkpoints were trained with them. The output map sums its heads between
A and B, y = (sum_n x_n A_n) (sum_m B_m), so that its B is the sum here. Attention is scaled by alpha / r, the MLP
never. And B does not start at zero.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from metalora_jax.adapters.attach import Theta
from metalora_jax.adapters.lora import LoRA
from metalora_jax.adapters.placement import Placement, Rule
from metalora_jax.policies.pi0 import openpi_names
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.openpi_names import Leaf
from metalora_jax.words import listed

Alpha = float | Mapping[str, float] | None
EXPERTS = ("decoder", "expert")


class Parts(NamedTuple):
    """A tree with LoRA, taken apart."""

    tree: dict[str, np.ndarray]  # of the base, for `openpi_names.infer` and `openpi_names.load`
    placement: Placement  # one rule for each adapted map
    theta: Theta  # float32


def split(tree: Mapping[str, np.ndarray], alpha: Alpha = None, rslora: bool = False) -> Parts:
    """Takes openpi's tree apart into that of a plain base and an adapter on it, which together compute the same.

    Args:
      tree: by openpi's names, joined by "/", with leaves such as ".../q_einsum/lora_a", ".../gating_einsum_lora_b".
      alpha: openpi's, for both experts, or {"decoder": ..., "expert": ...}. None is the rank, as in all of openpi's own
        variants, where the scale is 1.
      rslora: openpi's field: attention is scaled by alpha / sqrt(rank).

    Raises:
      ValueError: there is no LoRA; a factor has no partner, is unknown, misshapen or not finite: all of them are named;
        or see `openpi_names.infer`.
    """
    plain = {name: leaf for name, leaf in tree.items() if not is_factor(name)}
    factors = {name: leaf for name, leaf in tree.items() if is_factor(name)}
    config = openpi_names.infer({name: np.shape(leaf) for name, leaf in plain.items()})
    return Parts(plain, *adapter(config, factors, alpha, rslora))


def is_factor(name: str) -> bool:
    """Whether a leaf belongs to LoRA."""
    return "lora" in name


def adapter(
    config: Pi0Config, factors: Mapping[str, np.ndarray], alpha: Alpha = None, rslora: bool = False
) -> tuple[Placement, Theta]:
    """As `split`, of the LoRA leaves alone.

    Args:
      config: of the base.
      factors: the leaves for which `is_factor` holds.
      alpha, rslora: see `split`.
    """
    if not factors:
        raise ValueError("no leaf belongs to LoRA: this is a plain checkpoint")
    table = openpi_names.leaves(config)
    named = {name: (leaf_name(name, "a"), leaf_name(name, "b")) for name in table}
    pairs = {name: keys for name, keys in named.items() if set(keys) <= set(factors)}
    used = {key for pair in pairs.values() for key in pair}
    if strange := sorted(set(factors) - used):
        raise ValueError(f"{listed(strange)}: unknown, or without its partner; is the checkpoint whole?")
    faults: list[str] = []
    rules: list[Rule] = []
    theta: Theta = {}
    for name, keys in pairs.items():
        leaf, pair = table[name], [np.asarray(factors[key], np.float32) for key in keys]
        a, b = pair
        rank = a.shape[-1] if a.ndim else 0
        wanted = (*leaf.shape[:-1], rank), (*leaf.shape[:-2], rank, leaf.shape[-1])
        misshapen = [
            f"{key} {x.shape} instead of {y}" for key, x, y in zip(keys, pair, wanted, strict=True) if x.shape != y
        ]
        broken = [f"{key} is not finite" for key, x in zip(keys, pair, strict=True) if not np.isfinite(x).all()]
        if found := misshapen or broken:
            faults += found
            continue
        scale = _scale(name, rank, alpha, rslora)
        for path, own_a, own_b in _flat(leaf, a, b):
            kind = LoRA(rank=own_a.shape[-1], alpha=scale * own_a.shape[-1])
            for place, where in openpi_names.places(path, config.layers).items():
                map_path = place.removesuffix("/kernel")
                rules.append(Rule(re.escape(map_path), kind))
                theta[map_path] = {"a": jnp.asarray(own_a[where]), "b": jnp.asarray(own_b[where])}
    if faults:
        raise ValueError(f"LoRA: {listed(faults)}; all factors of a map have one rank and its shape")
    return tuple(rules), theta


def leaf_name(name: str, part: str) -> str:
    """openpi's name of a factor, `part` "a" or "b", of one of its tensors."""
    return f"{name[:-1]}lora_{part}" if name.endswith("/w") else f"{name}_lora_{part}"


def expert_of(name: str) -> str:
    """Which of `EXPERTS` one of openpi's tensors belongs to."""
    return "expert" if re.search(r"_1(/|$)", name) else "decoder"


def _scale(name: str, rank: int, alpha: Alpha, rslora: bool) -> float:
    """Of the product of the factors; openpi forgets it in the MLP."""
    if isinstance(alpha, Mapping):
        if set(alpha) != set(EXPERTS):
            raise ValueError(f"alpha is given for {', '.join(alpha)}; it must be for {' and '.join(EXPERTS)}")
        alpha = alpha[expert_of(name)]
    if "/attn/" not in name:
        return 1.0
    return (rank if alpha is None else alpha) / (rank**0.5 if rslora else rank)


def _flat(leaf: Leaf, a: np.ndarray, b: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Our path, A (L, in, rank) and B (L, rank, out) of every map that a tensor of openpi's holds."""
    for index, path in enumerate(leaf.paths):
        own_a, own_b = (x if leaf.part_axis is None else np.moveaxis(x, leaf.part_axis, 0)[index] for x in (a, b))
        if leaf.heads_first:
            yield path, *_of_heads(own_a, own_b)
        elif own_a.ndim == 4:  # the output map: (L, N, H, r) and (L, N, r, D)
            layers, heads, head_dim, rank = own_a.shape
            yield path, own_a.reshape(layers, heads * head_dim, rank), own_b.sum(axis=1)
        else:
            yield path, own_a, own_b


def _of_heads(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(L, N, D, r) and (L, N, r, H) -> (L, D, N * r) and, zero off its blocks, (L, N * r, N * H)."""
    layers, heads, width, rank = a.shape
    head_dim = b.shape[-1]
    blocks = np.zeros((layers, heads, rank, heads, head_dim), b.dtype)
    for head in range(heads):
        blocks[:, head, :, head] = b[:, head]
    return a.swapaxes(1, 2).reshape(layers, width, heads * rank), blocks.reshape(layers, heads * rank, heads * head_dim)
