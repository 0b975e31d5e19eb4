"""pi0's weights under openpi's names: a pure mapping between its parameter tree and ours, in both directions.

openpi's tree is a flat dict here, its paths joined by "/". It keeps one tensor for a map of all layers and all heads:

    attn/q_einsum/w        (L, N, D, H)      q_proj                            (L, D, N * H)
    attn/kv_einsum/w       (L, 2, K, D, H)   k_proj, v_proj                    (L, D, K * H)
    attn/qkv_einsum/w      (L, 3, N, D, H)   the three, where K = N            (L, D, N * H)
    attn/attn_vec_einsum/w (L, N, H, D)      o_proj                            (L, N * H, D)
    mlp/gating_einsum      (L, 2, D, F)      gate_proj, up_proj                (L, D, F)

The action expert has the same names with "_1" behind the module's. Our decoder holds its last layer apart.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import Pi0, build
from metalora_jax.policies.policy import Progress
from metalora_jax.policies.tensor_file import Pieces
from metalora_jax.words import listed

_ALIGNMENT = 64  # [bytes]

Shape = tuple[int, ...]
Tree = Mapping[str, np.ndarray]


class Leaf(NamedTuple):
    """One of openpi's tensors, and where it lives here."""

    shape: Shape  # openpi's
    paths: tuple[str, ...]  # ours; several where the tensor holds several of our maps
    part_axis: int | None = None  # where it does, the axis that tells them apart
    heads_first: bool = False  # openpi has (..., heads, width, head_dim), we have (..., width, heads * head_dim)


def leaves(config: Pi0Config) -> dict[str, Leaf]:
    """Every tensor of openpi's tree."""
    llm = "PaliGemma/llm"
    found = {
        f"{llm}/embedder/input_embedding": Leaf(
            (config.vocab_size, config.text_hidden), ("text/embed_tokens/embedding",)
        )
    }
    found |= _vision(config)
    found |= _gemma(config, llm, "", "text", config.text_hidden, config.text_mlp, adaptive=False)
    found |= _gemma(config, llm, "_1", "expert", config.expert_hidden, config.expert_mlp, adaptive=config.pi05)
    width, actions = config.expert_hidden, config.action_dim
    projections = {"action_in_proj": (actions, width), "action_out_proj": (width, actions)}
    if config.pi05:
        projections |= {"time_mlp_in": (width, width), "time_mlp_out": (width, width)}
    else:
        projections |= {"state_proj": (actions, width), "action_time_mlp_in": (2 * width, width)}
        projections |= {"action_time_mlp_out": (width, width)}
    for name, shape in projections.items():
        found |= _dense(name, name, (), shape)
    return found


def _vision(config: Pi0Config) -> dict[str, Leaf]:
    img, ours, width = "PaliGemma/img", "vision/layers", config.vision_hidden
    layers, heads = (config.vision_layers,), config.vision_heads
    block = f"{img}/Transformer/encoderblock"
    attention, head = f"{block}/MultiHeadDotProductAttention_0", (heads, width // heads)
    patches = (config.patch_size, config.patch_size, 3)
    found = {f"{img}/pos_embedding": Leaf((1, config.grid**2, width), ("vision/position_embedding",))}
    found |= _dense(f"{img}/embedding", "vision/patch_embedding", (), (*patches, width), (width,))
    found |= _norm(f"{block}/LayerNorm_0", f"{ours}/layer_norm1", (*layers, width))
    found |= _norm(f"{block}/LayerNorm_1", f"{ours}/layer_norm2", (*layers, width))
    for theirs, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        found |= _dense(f"{attention}/{theirs}", f"{ours}/self_attn/{name}", layers, (width, *head), head)
    found |= _dense(f"{attention}/out", f"{ours}/self_attn/out_proj", layers, (*head, width), (width,))
    found |= _dense(f"{block}/MlpBlock_0/Dense_0", f"{ours}/mlp/fc1", layers, (width, config.vision_mlp))
    found |= _dense(f"{block}/MlpBlock_0/Dense_1", f"{ours}/mlp/fc2", layers, (config.vision_mlp, width))
    found |= _norm(f"{img}/Transformer/encoder_norm", "vision/post_layernorm", (width,))
    return found | _dense(f"{img}/head", "connector", (), (width, config.text_hidden))


def _gemma(
    config: Pi0Config, llm: str, suffix: str, root: str, width: int, inner: int, adaptive: bool
) -> dict[str, Leaf]:
    count, n, kv, h = config.layers, config.heads, config.kv_heads, config.head_dim
    layers, attention, ours = f"{llm}/layers", f"{llm}/layers/attn", f"{root}/layers"
    q, k, v = (f"{ours}/self_attn/{name}_proj/kernel" for name in "qkv")
    found = {}
    if n == kv:
        found[f"{attention}/qkv_einsum{suffix}/w"] = Leaf((count, 3, n, width, h), (q, k, v), 1, heads_first=True)
    else:
        found[f"{attention}/q_einsum{suffix}/w"] = Leaf((count, n, width, h), (q,), heads_first=True)
        found[f"{attention}/kv_einsum{suffix}/w"] = Leaf((count, 2, kv, width, h), (k, v), 1, heads_first=True)
    found[f"{attention}/attn_vec_einsum{suffix}/w"] = Leaf((count, n, h, width), (f"{ours}/self_attn/o_proj/kernel",))
    gates = f"{ours}/mlp/gate_proj/kernel", f"{ours}/mlp/up_proj/kernel"
    found[f"{layers}/mlp{suffix}/gating_einsum"] = Leaf((count, 2, width, inner), gates, 1)
    found[f"{layers}/mlp{suffix}/linear"] = Leaf((count, inner, width), (f"{ours}/mlp/down_proj/kernel",))
    norms = {
        f"{layers}/pre_attention_norm{suffix}": (f"{ours}/input_layernorm", (count,)),
        f"{layers}/pre_ffw_norm{suffix}": (f"{ours}/post_attention_layernorm", (count,)),
        f"{llm}/final_norm{suffix}": (f"{root}/norm", ()),
    }
    for theirs, (name, lead) in norms.items():
        if adaptive:
            found |= _dense(f"{theirs}/Dense_0", f"{name}/modulation", lead, (width, 3 * width))
        else:
            found[f"{theirs}/scale"] = Leaf((*lead, width), (f"{name}/scale",))
    return found


def _dense(theirs: str, ours: str, lead: Shape, kernel: Shape, bias: Shape | None = None) -> dict[str, Leaf]:
    return {
        f"{theirs}/kernel": Leaf((*lead, *kernel), (f"{ours}/kernel",)),
        f"{theirs}/bias": Leaf((*lead, *(kernel[-1:] if bias is None else bias)), (f"{ours}/bias",)),
    }


def _norm(theirs: str, ours: str, shape: Shape) -> dict[str, Leaf]:
    return {f"{theirs}/{part}": Leaf(shape, (f"{ours}/{part}",)) for part in ("scale", "bias")}


def load(config: Pi0Config, tree: Tree, progress: Progress = iter) -> Pi0:
    """Builds the policy from openpi's tree, which may read its tensors from a file as they are asked for.

    One of them is on the way at a time, the largest first: the memory needed is that of the result, plus little.

    Args:
      config: describes the tree; its param_dtype is what the tensors become.
      tree: by openpi's names.
      progress: goes over the tensors, and may show how far it is.

    Raises:
      ValueError: tensors are missing, unknown, misshapen or not finite, or belong to LoRA; all of them are named.
    """
    table = leaves(config)
    graph, state = nnx.split(nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0))))
    shapes = {path: tuple(leaf.shape) for path, leaf in _flat(state).items()}
    there = set(tree)
    factors = sorted(name for name in there if "lora" in name)
    missing = sorted(set(table) - there)
    unknown = sorted(there - set(table) - set(factors))
    misshapen: list[str] = []
    broken: list[str] = []
    found: dict[str, jax.Array] = {}

    def take(name: str) -> None:  # a function, so that nothing of a tensor is left when the next one is read
        value = np.asarray(tree[name])
        if value.shape != table[name].shape:
            misshapen.append(f"{name} {value.shape} instead of {table[name].shape}")
        elif not np.isfinite(value).all():
            broken.append(name)
        else:
            for path, part in _to_ours(table[name], value, shapes, config.layers):
                found[path] = jax.device_put(_own(part, jnp.dtype(config.param_dtype)))

    for name in progress(sorted(there & set(table), key=lambda name: (-math.prod(table[name].shape), name))):
        take(name)
    faults = (
        (
            factors,
            "belong to LoRA: fold them into the weights, or see `openpi_lora.split`, metalora convert --adapter_output",
        ),
        (missing, "missing: is this the config of these weights?"),
        (unknown, "unknown: is this the config of these weights?"),
        (misshapen, "misshapen: is this the config of these weights?"),
        (broken, "not finite: the file is damaged"),
    )
    if any(names for names, _ in faults):
        raise ValueError("; ".join(f"{listed(names)} {fault}" for names, fault in faults if names))
    return nnx.merge(graph, nnx.from_flat_state([(_path(p), nnx.Param(found[p])) for p in shapes]))


def tree_of(model: Pi0) -> dict[str, np.ndarray]:
    """The inverse of `load`.

    Raises:
      ValueError: if the model has parameters that openpi has no name for, such as adapters.
    """
    return state_to_tree(model.config, nnx.split(model)[1])


def state_to_tree(config: Pi0Config, state: nnx.State) -> dict[str, np.ndarray]:
    """Parameters, or anything shaped like them (gradients, moments), in openpi's tree."""
    values, table = _values(config, state), leaves(config)
    return {name: _to_theirs(leaf, values, config.layers) for name, leaf in table.items()}


def pieces_of(model: Pi0) -> dict[str, Pieces]:
    """`tree_of` for writing: a layer of a tensor is made as it is asked for."""
    values, layers = _values(model.config, nnx.split(model)[1]), model.config.layers

    def pieces(leaf: Leaf) -> Iterator[np.ndarray]:
        if not all("/layers/" in path for path in leaf.paths):
            yield _to_theirs(leaf, values, layers)
            return
        axis = None if leaf.part_axis is None else leaf.part_axis - 1
        one = Leaf(leaf.shape[1:], leaf.paths, axis, leaf.heads_first)
        for layer in range(leaf.shape[0]):
            at = {}
            for path in leaf.paths:
                *stack, last = places(path, layers)  # the decoder's last layer has a place of its own
                alone = layer == layers - 1 and path.startswith("text/")
                at[path] = values[last] if alone else values[(stack or [last])[0]][layer]
            yield _to_theirs(one, at).astype(_dtype(leaf, values, layers), copy=False)

    table = leaves(model.config)
    return {name: Pieces(leaf.shape, _dtype(leaf, values, layers), pieces(leaf)) for name, leaf in table.items()}


def _values(config: Pi0Config, state: nnx.State) -> dict[str, np.ndarray]:
    values = {path: np.asarray(leaf.get_value()) for path, leaf in _flat(state).items()}
    known = {path for leaf in leaves(config).values() for whole in leaf.paths for path in places(whole, config.layers)}
    if strangers := sorted(set(values) - known):
        raise ValueError(f"{listed(strangers)} have no name in openpi; fuse or detach the adapters first")
    return values


def is_pi05(names: Iterable[str]) -> bool:
    """Whether a tree is pi0.5's: it has an MLP of the flow time alone."""
    return "time_mlp_in/kernel" in set(names)


def infer(shapes: Mapping[str, Shape], **fields: Any) -> Pi0Config:
    """The config of openpi's tree, from its shapes.

    Args:
      shapes: by openpi's names.
      fields: what shapes do not tell, such as max_tokens, horizon and discrete_state_input, and overrides.

    Raises:
      ValueError: a tensor that the sizes are read from is missing, there is no action expert, or the sizes do not
        fit each other.
    """

    def shape(name: str, axes: int) -> Shape:
        if len(shapes.get(name, ())) != axes:
            raise ValueError(f"no pi0 or pi0.5: {name} is {shapes.get(name, 'missing')}, it must have {axes} axes")
        return tuple(shapes[name])

    if "PaliGemma/llm/embedder/input_embedding" in shapes and not any("_1/" in name for name in shapes):
        raise ValueError("the weights have no action expert, as pi0-FAST has none; only pi0 and pi0.5 can be read")
    llm, block = "PaliGemma/llm", "PaliGemma/img/Transformer/encoderblock"
    vocabulary, width = shape(f"{llm}/embedder/input_embedding", 2)
    layers, heads, head_dim, _ = shape(f"{llm}/layers/attn/attn_vec_einsum/w", 4)
    joint = f"{llm}/layers/attn/qkv_einsum/w" in shapes
    vision_layers, vision_hidden, vision_heads, _ = shape(f"{block}/MultiHeadDotProductAttention_0/query/kernel", 4)
    patch = shape("PaliGemma/img/embedding/kernel", 4)[0]
    side = round(shape("PaliGemma/img/pos_embedding", 3)[1] ** 0.5)
    sizes: dict[str, Any] = dict(
        pi05=is_pi05(shapes),
        image_size=patch * side,
        patch_size=patch,
        vision_hidden=vision_hidden,
        vision_layers=vision_layers,
        vision_heads=vision_heads,
        vision_mlp=shape(f"{block}/MlpBlock_0/Dense_0/kernel", 3)[2],
        vocab_size=vocabulary,
        text_hidden=width,
        text_mlp=shape(f"{llm}/layers/mlp/linear", 3)[1],
        layers=layers,
        heads=heads,
        kv_heads=heads if joint else shape(f"{llm}/layers/attn/kv_einsum/w", 5)[2],
        head_dim=head_dim,
        expert_hidden=shape(f"{llm}/layers/mlp_1/linear", 3)[2],
        expert_mlp=shape(f"{llm}/layers/mlp_1/linear", 3)[1],
        action_dim=shape("action_out_proj/kernel", 2)[1],
    )
    return (Pi0Config.pi05_base if sizes["pi05"] else Pi0Config.pi0_base)(**(sizes | fields))


def _to_ours(
    leaf: Leaf, value: np.ndarray, shapes: Mapping[str, Shape], layers: int
) -> Iterator[tuple[str, np.ndarray]]:
    for index, whole in enumerate(leaf.paths):
        part = value if leaf.part_axis is None else np.moveaxis(value, leaf.part_axis, 0)[index]
        if leaf.heads_first:
            part = part.swapaxes(-3, -2)
        for path, where in places(whole, layers).items():
            yield path, part[where].reshape(shapes[path])


def _own(part: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A copy in another type, aligned as JAX wants it: a CPU then takes the buffer as it is, without a second copy."""
    room = np.empty(part.size * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    own = room[start : start + part.size * dtype.itemsize].view(dtype).reshape(part.shape)
    own[...] = part
    return own


def _to_theirs(leaf: Leaf, values: Mapping[str, np.ndarray], layers: int | None = None) -> np.ndarray:
    """One tensor; without `layers` the values are those of a single layer, by the paths of the leaf."""
    at = {path: {path: ...} if layers is None else places(path, layers) for path in leaf.paths}
    whole = np.empty(leaf.shape, np.result_type(*(values[place] for path in leaf.paths for place in at[path])))
    for index, path in enumerate(leaf.paths):
        part = whole if leaf.part_axis is None else np.moveaxis(whole, leaf.part_axis, 0)[index]
        part = part.swapaxes(-3, -2) if leaf.heads_first else part
        for place, where in at[path].items():
            part[where][...] = values[place].reshape(part[where].shape)
    return whole


def _dtype(leaf: Leaf, values: Mapping[str, np.ndarray], layers: int) -> np.dtype:
    """Where adapters were folded into some of the maps of a tensor, these have more bits than the others."""
    return np.result_type(*(values[place] for path in leaf.paths for place in places(path, layers)))


def places(path: str, layers: int) -> dict[str, Any]:
    """Where the parts of one of our maps live, and the layers that each holds: the decoder's last stands apart."""
    stack = "text/layers/"
    if not path.startswith(stack):
        return {path: ...}
    last = path.replace(stack, "text/last/")
    return {path: slice(layers - 1), last: layers - 1} if layers > 1 else {last: 0}


def _flat(state: nnx.State) -> dict[str, Any]:
    return {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}


def _path(path: str) -> tuple[str, ...]:
    return tuple(path.split("/"))
