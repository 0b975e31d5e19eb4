"""What PyTorch's pi0 and pi0.5, as lerobot has them, call our linear maps: the names in files of PEFT."""

from flax import nnx

from metalora_jax.adapters.attach import linear_maps
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import build

_PALIGEMMA = "model.paligemma_with_expert.paligemma.model"
_EXPERT = "model.paligemma_with_expert.gemma_expert.model"
_STACKS = {
    "vision/layers": f"{_PALIGEMMA}.vision_tower.vision_model.encoder.layers",
    "text/layers": f"{_PALIGEMMA}.language_model.layers",
    "expert/layers": f"{_EXPERT}.layers",
}
_SINGLE = {
    "connector": f"{_PALIGEMMA}.multi_modal_projector.linear",
    "expert/norm/modulation": f"{_EXPERT}.norm.dense",
}
_PATCHES = "vision/patch_embedding"  # a convolution there, for which PEFT's files have another layout


def module_names(config: Pi0Config) -> dict[str, tuple[tuple[str, ...], int | None]]:
    """PEFT's name of every linear map -> its path here, and its layer in a stack or None."""
    model = nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0)))
    found: dict[str, tuple[tuple[str, ...], int | None]] = {}
    for path, shape in linear_maps(model).items():
        ours, stack = tuple(path.split("/")), "/".join(path.split("/")[:2])
        inner = ".".join(ours[2:]).replace("modulation", "dense")
        if path == _PATCHES:
            continue
        if stack == "text/last":
            found[f"{_STACKS['text/layers']}.{config.layers - 1}.{inner}"] = ours, None
        elif stack in _STACKS:
            found |= {f"{_STACKS[stack]}.{layer}.{inner}": (ours, layer) for layer in range(shape[0])}
        else:
            found[_SINGLE.get(path, f"model.{path}")] = ours, None
    return found
