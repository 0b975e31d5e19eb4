"""Floating-point operations of pi0's and pi0.5's stages."""

from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.policy import Operations


def operations(config: Pi0Config, cameras: int) -> Operations:
    """Of one frame, of the linear maps and of attention; norms and softmax are not counted."""
    patches, d = config.image_tokens, config.vision_hidden
    vision_layer = 2 * patches * (4 * d * d + 2 * d * config.vision_mlp) + 4 * patches**2 * d
    ends = 2 * patches * d * (3 * config.patch_size**2 + config.text_hidden)
    vision = cameras * (config.vision_layers * vision_layer + ends)
    prefix = cameras * patches + config.max_tokens
    h, q, kv = config.text_hidden, config.heads * config.head_dim, config.kv_heads * config.head_dim
    text_attention = (config.layers - 1) * 4 * prefix**2 * q
    text_maps = (config.layers - 1) * (2 * h * q + 2 * h * kv + 3 * h * config.text_mlp) + 2 * h * kv
    text = 2 * prefix * text_maps + text_attention
    e, tokens = config.expert_hidden, config.horizon + (not config.pi05)
    layer = tokens * (2 * e * q + 2 * e * kv + 3 * e * config.expert_mlp)
    norms = (2 * config.layers + 1) * 3 * e * e if config.pi05 else 0
    # pi0 mixes the flow time into each action; pi0.5 has one condition for all of them.
    heads = 2 * config.horizon * e * config.action_dim
    heads += 2 * e * e if config.pi05 else config.horizon * 3 * e * e + config.action_dim * e
    expert_attention = config.layers * 4 * tokens * (prefix + tokens) * q
    expert = 2 * (config.layers * layer + norms + heads) + expert_attention
    return Operations(vision, text, expert, text_attention, expert_attention)
