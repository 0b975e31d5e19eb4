"""Writes lerobot policy directories with random weights, in the layout of the public ones.

python -m tests.lerobot_directory DIRECTORY    the full-size lerobot/smolvla_base: 500 tensors, 1.2 GB
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from metalora_jax.policies.smolvla import convert
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA
from metalora_jax.training.pretrain import train_tokenizer
from tests.policies.tiny_smolvla import tiny

INVENTORY = Path(__file__).parent / "golden" / "smolvla_base_tensors.json"
INSTRUCTIONS = ("pick up the cube", "open the drawer")
_STEPS = [
    {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
    {"registry_name": "to_batch_processor", "config": {}},
    {"registry_name": "smolvla_new_line_processor", "config": {}},
]


def full_size() -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and dtype of every tensor of lerobot/smolvla_base."""
    return {name: (tuple(shape), dtype) for name, (shape, dtype) in json.loads(INVENTORY.read_text()).items()}


def shapes_of(config: SmolVLAConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    """The same for a small config: as lerobot would store it, all bfloat16 but the heads."""
    tensors = convert.to_lerobot_tensors(SmolVLA(config, rngs=nnx.Rngs(0)))
    shapes = {name: (t.shape, "bfloat16" if "vlm_with_expert" in name else "float32") for name, t in tensors.items()}
    norm, head = convert.UNUSED
    return shapes | {
        norm: ((config.text_hidden,), "bfloat16"),
        head: ((config.vocab_size, config.text_hidden), "bfloat16"),
    }


def random_tensors(shapes: Mapping[str, tuple[tuple[int, ...], str]], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep activations in range: norms near 1, the rest small."""
    rng = np.random.default_rng(seed)

    def one(name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(shape, np.float32)
        if "norm" in name:
            return 0.1 * values + (1 if name.endswith("weight") else 0)
        return values * (0.02 if len(shape) < 2 else np.prod(shape[1:]) ** -0.5)

    return {name: one(name, shape).astype(jnp.dtype(dtype)) for name, (shape, dtype) in shapes.items()}


def policy_config(**fields: Any) -> dict[str, Any]:
    """config.json of smolvla_base."""
    camera = {"type": "VISUAL", "shape": [3, 256, 256]}
    return {
        "type": "smolvla",
        "n_obs_steps": 1,
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [6]},
            **{f"observation.images.camera{i}": camera for i in (1, 2, 3)},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [6]}},
        "device": "cpu",
        "chunk_size": 50,
        "n_action_steps": 50,
        "max_state_dim": 32,
        "max_action_dim": 32,
        "resize_imgs_with_padding": [512, 512],
        "empty_cameras": 0,
        "adapt_to_pi_aloha": False,
        "use_delta_joint_actions_aloha": False,
        "tokenizer_max_length": 48,
        "num_steps": 10,
        "vlm_model_name": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        "load_vlm_weights": True,
        "add_image_special_tokens": False,
        "attention_mode": "cross_attn",
        "prefix_length": 0,
        "pad_language_to": "max_length",
        "num_expert_layers": 0,
        "num_vlm_layers": 16,
        "self_attn_every_n_layers": 2,
        "expert_width_multiplier": 0.75,
        "min_period": 0.004,
        "max_period": 4.0,
        **fields,
    }


def write(
    directory: Path,
    config: SmolVLAConfig | None = None,
    statistics: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    **fields: Any,
) -> Path:
    """A policy directory; the full-size one where no config is given.

    Args:
      directory: made if absent.
      config: sizes; those of its vision-language model are written to `directory`/vlm, as its name.
      statistics: what the normaliser's state file holds.
      seed: of the weights.
      fields: put over those of `policy_config`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    own = small_fields(config or SmolVLAConfig.base(), directory / "vlm")  # where the hub cannot be asked
    if config is not None:
        fields = own | fields
    shapes = full_size() if config is None else shapes_of(config)
    save_file(random_tensors(shapes, seed), directory / convert.WEIGHTS, metadata={"format": "pt"})
    (directory / convert.CONFIG).write_text(json.dumps(policy_config(**fields), indent=2))
    train_tokenizer(INSTRUCTIONS, 320).save(str(directory / convert.TOKENIZER))
    state = "policy_preprocessor_step_5_normalizer_processor.safetensors"
    steps = [*_STEPS, {"registry_name": "normalizer_processor", "config": {}, "state_file": state}]
    (directory / "policy_preprocessor.json").write_text(json.dumps({"name": "policy_preprocessor", "steps": steps}))
    if statistics is None:
        statistics = {
            f"{feature}.{stat}": np.full(6, value, np.float32)
            for feature in ("observation.state", "action")
            for stat, value in (("mean", 0.5), ("std", 2.0))
        }
    save_file(dict(statistics), directory / state)
    return directory


def small_fields(config: SmolVLAConfig, vlm: Path) -> dict[str, Any]:
    """The fields of `policy_config` for a small config, whose vision-language model is described in `vlm`."""
    vlm.mkdir(exist_ok=True)
    text = dict(
        hidden_size=config.text_hidden,
        intermediate_size=config.text_mlp,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.rms_norm_eps,
        vocab_size=config.vocab_size,
        num_hidden_layers=config.layers,
    )
    vision = dict(
        hidden_size=config.vision_hidden,
        intermediate_size=config.vision_mlp,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        layer_norm_eps=config.layer_norm_eps,
    )
    values = {
        "model_type": "smolvlm",
        "text_config": text,
        "vision_config": vision,
        "scale_factor": config.pixel_shuffle,
    }
    (vlm / "config.json").write_text(json.dumps(values))
    camera = {"type": "VISUAL", "shape": [3, 64, 64]}
    return dict(
        vlm_model_name=str(vlm),
        num_vlm_layers=config.layers,
        chunk_size=config.chunk_size,
        n_action_steps=config.chunk_size,
        max_state_dim=config.max_state_dim,
        max_action_dim=config.max_action_dim,
        tokenizer_max_length=config.max_tokens,
        num_steps=config.num_steps,
        resize_imgs_with_padding=[config.image_size] * 2,
        expert_width_multiplier=config.expert_width_multiplier,
        input_features={
            "observation.state": {"type": "STATE", "shape": [6]},
            **{f"observation.images.camera{i + 1}": camera for i in range(config.cameras)},
        },
    )


def small() -> SmolVLAConfig:
    """A config whose tokenizer and widths suit made-up data of six dimensions."""
    ids = {name: getattr(SmolVLAConfig, name) for name in ("fake_image_token_id", "global_image_token_id")}
    return tiny(vocab_size=320, max_tokens=24, max_state_dim=32, max_action_dim=32, **ids)


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
