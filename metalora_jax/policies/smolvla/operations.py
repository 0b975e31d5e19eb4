"""Floating-point operations of SmolVLA's stages."""

from metalora_jax.policies.policy import Operations
from metalora_jax.policies.smolvla.config import SmolVLAConfig


def operations(config: SmolVLAConfig, cameras: int) -> Operations:
    """Of one frame, of the linear maps and of attention; norms and softmax are not counted."""
    patches, d, m = config.grid**2, config.vision_hidden, config.vision_mlp
    vision_layer = 2 * patches * (4 * d * d + 2 * d * m) + 4 * patches**2 * d
    stem = 2 * patches * 3 * config.patch_size**2 * d
    connector = 2 * config.image_tokens * d * config.pixel_shuffle**2 * config.text_hidden
    vision = cameras * (config.vision_layers * vision_layer + stem + connector)
    prefix = cameras * config.image_tokens + config.max_tokens + 1
    h, kv, q = config.text_hidden, config.kv_width, config.heads * config.head_dim
    text_attention = (config.layers - 1) * 4 * prefix**2 * q
    text_maps = (config.layers - 1) * (2 * h * q + 2 * h * kv + 3 * h * config.text_mlp) + 2 * h * kv
    text = 2 * prefix * text_maps + text_attention
    tokens, e = config.chunk_size, config.expert_hidden
    own = tokens * (2 * e * q + 3 * e * config.expert_mlp)
    self_maps = len(config.self_layers) * (own + 2 * tokens * e * kv)
    cross_maps = len(config.cross_layers) * (own + 2 * prefix * kv * kv)
    heads = tokens * (2 * e * config.max_action_dim + 3 * e * e)
    keys = len(config.self_layers) * (prefix + tokens) + len(config.cross_layers) * prefix
    expert_attention = 4 * tokens * keys * q
    expert = 2 * (self_maps + cross_maps + heads) + expert_attention
    return Operations(vision, text, expert, text_attention, expert_attention)
