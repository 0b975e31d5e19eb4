"""The vision tower: a SigLIP encoder without class token or pooling (Zhai et al., arXiv:2303.15343)."""

from functools import partial
from typing import Protocol

import jax
from flax import nnx

from metalora_jax.policies.transformer import Arithmetic, attend, linear, scan_layers, stack_layers


class Tower(Arithmetic, Protocol):
    """What a config says of its vision tower."""

    @property
    def patch_size(self) -> int:
        """[px], square."""

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""

    @property
    def vision_hidden(self) -> int:
        """Width of a token."""

    @property
    def vision_layers(self) -> int:
        """Number of layers."""

    @property
    def vision_heads(self) -> int:
        """Number of attention heads."""

    @property
    def vision_mlp(self) -> int:
        """Inner width of the MLPs."""

    @property
    def layer_norm_eps(self) -> float:
        """Added to variances."""


class VisionAttention(nnx.Module):
    """Full bidirectional multi-head attention, with biases."""

    def __init__(self, config: Tower, rngs: nnx.Rngs):
        width = config.vision_hidden
        self.heads = config.vision_heads
        self.q_proj = linear(config, width, width, rngs)
        self.k_proj = linear(config, width, width, rngs)
        self.v_proj = linear(config, width, width, rngs)
        self.out_proj = linear(config, width, width, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, patches, width) -> (B, patches, width)."""
        q, k, v = (proj(x).reshape(*x.shape[:-1], self.heads, -1) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend(q, k, v))


class VisionMlp(nnx.Module):
    """Two linear maps with the tanh approximation of GELU between them."""

    def __init__(self, config: Tower, rngs: nnx.Rngs):
        self.fc1 = linear(config, config.vision_hidden, config.vision_mlp, rngs)
        self.fc2 = linear(config, config.vision_mlp, config.vision_hidden, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, patches, width) -> (B, patches, width)."""
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=True))


class VisionLayer(nnx.Module):
    """A pre-norm transformer encoder layer."""

    def __init__(self, config: Tower, rngs: nnx.Rngs):
        self.layer_norm1 = _layer_norm(config, rngs)
        self.self_attn = VisionAttention(config, rngs)
        self.layer_norm2 = _layer_norm(config, rngs)
        self.mlp = VisionMlp(config, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, patches, width) -> (B, patches, width)."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionTower(nnx.Module):
    """Images to one hidden vector per patch."""

    def __init__(self, config: Tower, rngs: nnx.Rngs, embedding_dtype: str | None = None):
        """`embedding_dtype`: of the patches before the first layer, where it is not the config's dtype."""
        self.patch_size, self.dtype = config.patch_size, config.dtype
        # The published convolution has stride = kernel = patch: it is a linear map on flattened patches.
        inputs = 3 * config.patch_size**2
        self.patch_embedding = linear(config, inputs, config.vision_hidden, rngs, dtype=embedding_dtype)
        self.position_embedding = nnx.Param(
            0.02 * jax.random.normal(rngs.params(), (config.grid**2, config.vision_hidden), config.param_dtype)
        )
        self.layers = stack_layers(partial(VisionLayer, config), config.vision_layers, rngs)
        self.post_layernorm = _layer_norm(config, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(B, H, W, 3) in [-1, 1] -> (B, patches, vision_hidden), patches row-major.

        Position ids are row-major too. Some transformers releases (4.55 and later) compute other ids in float32, off
        by one along each axis; the public weights were trained with these.
        """
        x = self.patch_embedding(flatten_patches(images, self.patch_size))
        x = (x + self.position_embedding[...].astype(x.dtype)[None]).astype(self.dtype)
        x, _ = scan_layers(self.layers, lambda layer, x, _: (layer(x), None), x)
        return self.post_layernorm(x)


def flatten_patches(images: jax.Array, patch: int) -> jax.Array:
    """(B, H, W, 3) -> (B, patches, patch * patch * 3), patches and the pixels within them row-major."""
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


def _layer_norm(config: Tower, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.vision_hidden,
        epsilon=config.layer_norm_eps,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels in float32
        rngs=rngs,
    )
