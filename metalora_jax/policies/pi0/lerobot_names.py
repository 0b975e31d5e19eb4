"""pi0's weights under lerobot's names: PyTorch's tensors in model.safetensors, in and out.

lerobot's networks are openpi's PyTorch ones on Hugging Face's PaliGemma and Gemma, with one tensor for each map of each
layer. Ours are stacked over layers, but for the decoder's last one. All names begin with "model.", which files that
openpi's own converter wrote leave out. P is paligemma_with_expert.paligemma, V P.model.vision_tower.vision_model, and E
paligemma_with_expert.gemma_expert:

    V.embeddings.patch_embedding.weight         (W, 3, p, p)    vision/patch_embedding (p * p * 3, W)
    V.embeddings.position_embedding.weight      (n, W)          vision/position_embedding (n, W)
    V.encoder.layers.I.*                                        vision/layers
    V.post_layernorm.*                                          vision/post_layernorm
    P.model.multi_modal_projector.linear.*                      connector
    P.model.language_model.embed_tokens.weight  (words, D)      text/embed_tokens
    P.model.language_model.layers.I.*                           text/layers, the last one text/last
    P.model.language_model.norm.weight                          text/norm
    E.model.layers.I.*, E.model.norm.*                          expert/layers, expert/norm
    state_proj.*, action_in_proj.*, time_mlp_in.*, ...          the same

A linear map is (out, in) there and (in, out) here. So q_proj is (N * H, D), its heads one after the other, where openpi
has (N, D, H): queries, keys and values stand apart in lerobot, and so do gate and up. A norm's `weight` is our `scale`,
which both add to one in Gemma. pi0.5's adaptive norms are `dense`, (3 * D, D) with scale, shift and gate in this order:
our `modulation`.

Two tensors reach no output. E.lm_head.weight is accepted and left out. P.lm_head.weight was tied to the embedding, so
that older files hold that one in place of embed_tokens; newer ones (0.6) hold both, untied, and embed_tokens counts, as
in lerobot. What the decoder's last layer has beside its keys and values reaches none, either, but is kept.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import Pi0, build
from metalora_jax.policies.policy import Progress
from metalora_jax.words import listed

Shape = tuple[int, ...]

PREFIX = "model."
_P, _E = "paligemma_with_expert.paligemma", "paligemma_with_expert.gemma_expert"
_TOWER = f"{_P}.model.vision_tower.vision_model"
_MODULES = {
    "vision/patch_embedding": f"{_TOWER}.embeddings.patch_embedding",
    "vision/position_embedding": f"{_TOWER}.embeddings.position_embedding.weight",
    "vision/layers": f"{_TOWER}.encoder.layers",
    "vision/post_layernorm": f"{_TOWER}.post_layernorm",
    "connector": f"{_P}.model.multi_modal_projector.linear",
    "text/layers": f"{_P}.model.language_model.layers",
    "text/last": f"{_P}.model.language_model.layers",
    "text": f"{_P}.model.language_model",
    "expert/layers": f"{_E}.model.layers",
    "expert": f"{_E}.model",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias", "modulation": "dense"}
_PATCHES = "vision/patch_embedding/kernel"
EMBEDDING, TIED = f"{_P}.model.language_model.embed_tokens.weight", f"{_P}.lm_head.weight"
UNUSED = (TIED, f"{_E}.lm_head.weight")
"""Tensors that no output of the policy depends on, without the prefix."""

# lerobot's networks have these numbers of heads, whatever their variant; shapes do not tell them.
HEADS, VISION_HEADS = 8, 16


class Slot(NamedTuple):
    """One of lerobot's tensors, and where it lives here."""

    shape: Shape  # lerobot's
    path: str  # ours
    layer: int | None  # on the leading axis of a stack; None for a parameter of its own


def table(config: Pi0Config) -> dict[str, Slot]:
    """Every tensor that the policy reads, by lerobot's name without the prefix."""
    state = nnx.state(nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0))), nnx.Param)
    return {name: slot for path, leaf in _flat(state).items() for name, slot in _names(config, path, tuple(leaf.shape))}


def _names(config: Pi0Config, path: str, shape: Shape) -> Iterator[tuple[str, Slot]]:
    """All names of one of our parameters: one, or one for each layer of a stack."""
    parts = path.split("/")
    prefix = next(("/".join(parts[:n]) for n in range(len(parts), 0, -1) if "/".join(parts[:n]) in _MODULES), "")
    rest = [_LEAVES.get(part, part) for part in parts[len(prefix.split("/")) if prefix else 0 :]]
    if not prefix.endswith(("layers", "last")):
        yield ".".join(filter(None, [_MODULES.get(prefix, ""), *rest])), Slot(_torch(config, path, shape), path, None)
    elif prefix == "text/last":
        yield ".".join([_MODULES[prefix], str(config.layers - 1), *rest]), Slot(shape[::-1], path, None)
    else:
        for layer in range(shape[0]):
            yield ".".join([_MODULES[prefix], str(layer), *rest]), Slot(shape[:0:-1], path, layer)


def _torch(config: Pi0Config, path: str, shape: Shape) -> Shape:
    if path == _PATCHES:
        return shape[1], 3, config.patch_size, config.patch_size
    return shape[::-1] if path.endswith("/kernel") else shape


def plain(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Names without the prefix -> names in the file; the embedding stands under the name of its own.

    Raises:
      ValueError: two names are the same one but for the prefix.
    """
    found: dict[str, str] = {}
    for name in tensors:
        if (own := name.removeprefix(PREFIX)) in found:
            raise ValueError(f"{name} and {found[own]} are the same tensor; keep the one that counts")
        found[own] = name
    if EMBEDDING not in found and TIED in found:
        found[EMBEDDING] = found.pop(TIED)
    return found


def load(config: Pi0Config, tensors: Mapping[str, np.ndarray], progress: Progress = iter) -> Pi0:
    """Builds the policy from lerobot's tensors, which may be read from a file as they are asked for.

    One of our parameters is on the way at a time, the largest first: the memory needed is that of the result, plus
    little.

    Args:
      config: describes the tensors; its param_dtype is what they become.
      tensors: by lerobot's names.
      progress: goes over the parameters, and may show how far it is.

    Raises:
      ValueError: tensors are missing, unknown, misshapen or not finite; all of them are named.
    """
    known, names = table(config), plain(tensors)
    missing = sorted(set(known) - set(names))
    unknown = sorted(names[name] for name in set(names) - set(known) - set(UNUSED))
    graph, state = nnx.split(nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0))))
    shapes = {path: tuple(leaf.shape) for path, leaf in _flat(state).items()}
    parts: dict[str, list[str]] = {path: [] for path in shapes}
    for name, slot in known.items():
        if name in names:
            parts[slot.path].append(name)
    misshapen: list[str] = []
    broken: list[str] = []
    found: dict[str, jax.Array] = {}

    def take(path: str) -> None:  # a function, so that nothing of it is left when the next one is read
        whole = np.empty(shapes[path], jnp.dtype(config.param_dtype))
        for name in parts[path]:
            value, slot = np.asarray(tensors[names[name]]), known[name]
            if value.shape != slot.shape:
                misshapen.append(f"{names[name]} {value.shape} instead of {slot.shape}")
            elif not np.isfinite(value).all():
                broken.append(names[name])
            else:
                whole[... if slot.layer is None else slot.layer] = _to_ours(path, value)
        found[path] = jnp.asarray(whole)

    for path in progress(sorted(shapes, key=lambda path: (-math.prod(shapes[path]), path))):
        take(path)
    faults = (
        ([PREFIX + name for name in missing], "missing: does config.json describe these weights?"),
        (unknown, "unknown: does config.json describe these weights?"),
        (misshapen, "misshapen: does config.json describe these weights?"),
        (broken, "not finite: the file is damaged"),
    )
    if any(each for each, _ in faults):
        raise ValueError("; ".join(f"{listed(each)} {fault}" for each, fault in faults if each))
    return nnx.merge(graph, nnx.from_flat_state([(tuple(p.split("/")), nnx.Param(found[p])) for p in shapes]))


def tensors_of(model: Pi0) -> dict[str, np.ndarray]:
    """The inverse of `load`, but for the `UNUSED` tensors; names have the prefix.

    Raises:
      ValueError: the model has parameters that lerobot has no name for, such as adapters.
    """
    values = {path: np.asarray(leaf.get_value()) for path, leaf in _flat(nnx.state(model, nnx.Param)).items()}
    known = table(model.config)
    if strangers := sorted(set(values) - {slot.path for slot in known.values()}):
        raise ValueError(f"{listed(strangers)} have no name in lerobot; fuse or detach the adapters first")
    return {PREFIX + name: _to_torch(slot, values[slot.path]) for name, slot in known.items()}


def infer(shapes: Mapping[str, Shape], **fields: Any) -> Pi0Config:
    """The config of lerobot's tensors, from their shapes.

    Args:
      shapes: by names without the prefix, see `plain`.
      fields: what shapes do not tell, such as horizon and max_tokens, and overrides.

    Raises:
      ValueError: a tensor that the sizes are read from is missing, or the sizes do not fit each other.
    """

    def shape(name: str, axes: int) -> Shape:
        if len(shapes.get(name, ())) != axes:
            there = shapes.get(name, "missing")
            raise ValueError(f"no pi0 or pi0.5: {PREFIX}{name} is {there}, it must have {axes} axes")
        return tuple(shapes[name])

    def count(stack: str) -> int:
        parts = (name.removeprefix(f"{stack}.").split(".")[0] for name in shapes if name.startswith(f"{stack}."))
        return 1 + max((int(part) for part in parts if part.isdecimal()), default=-1)

    decoder, expert, tower = _MODULES["text/layers"], _MODULES["expert/layers"], _MODULES["vision/layers"]
    vocabulary, width = shape(EMBEDDING, 2)
    queries, keys = (shape(f"{decoder}.0.self_attn.{name}_proj.weight", 2)[0] for name in "qk")
    vision_hidden, _, patch, _ = shape(f"{_MODULES['vision/patch_embedding']}.weight", 4)
    side = round(shape(_MODULES["vision/position_embedding"], 2)[0] ** 0.5)
    head_dim = queries // HEADS
    sizes: dict[str, Any] = dict(
        pi05=is_pi05(shapes),
        image_size=patch * side,
        patch_size=patch,
        vision_hidden=vision_hidden,
        vision_layers=count(tower),
        vision_heads=VISION_HEADS,
        vision_mlp=shape(f"{tower}.0.mlp.fc1.weight", 2)[0],
        vocab_size=vocabulary,
        text_hidden=width,
        text_mlp=shape(f"{decoder}.0.mlp.down_proj.weight", 2)[1],
        layers=count(decoder),
        heads=HEADS,
        kv_heads=keys // head_dim if head_dim else 0,
        head_dim=head_dim,
        expert_hidden=shape(f"{expert}.0.mlp.down_proj.weight", 2)[0],
        expert_mlp=shape(f"{expert}.0.mlp.down_proj.weight", 2)[1],
        action_dim=shape("action_out_proj.weight", 2)[0],
    )
    return (Pi0Config.pi05_base if sizes["pi05"] else Pi0Config.pi0_base)(**(sizes | fields))


def is_pi05(names: Mapping[str, Any]) -> bool:
    """Whether tensors are pi0.5's: it has an MLP of the flow time alone. Names are without the prefix."""
    return "time_mlp_in.weight" in names


def _to_ours(path: str, value: np.ndarray) -> np.ndarray:
    if path == _PATCHES:
        return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
    return value.T if path.endswith("/kernel") else value


def _to_torch(slot: Slot, value: np.ndarray) -> np.ndarray:
    own = value if slot.layer is None else value[slot.layer]
    if slot.path == _PATCHES:
        _, _, rows, columns = slot.shape
        return np.ascontiguousarray(own.reshape(rows, columns, 3, -1).transpose(3, 2, 0, 1))
    return np.ascontiguousarray(own.T if slot.path.endswith("/kernel") else own)


def _flat(state: nnx.State) -> dict[str, Any]:
    return {"/".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
