"""lerobot's directories of pi0 and pi0.5 with random weights: as lerobot lays them out, at a size for tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from metalora_jax.training.pretrain import train_tokenizer

VOCABULARY, BOS, JOINTS = 320, 2, 6
INSTRUCTIONS = ("pick up the cube", "put the cube in the box", "push the red_cube")
WIDTH, MLP, EXPERT, EXPERT_MLP, LAYERS, HEADS, HEAD = 32, 40, 24, 36, 3, 8, 8
VISION, VISION_MLP, VISION_LAYERS, PATCH, SIDE = 32, 24, 2, 14, 28
STEPS = {"pi0": 5, "pi05": 2}  # the number of the normalizer in 0.4.4; 0.6.1 has one step more before it
POST_FILE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


def tokenizer() -> Tokenizer:
    """As many tokens as the policies embed; it puts one at the beginning by itself, as PaliGemma's does."""
    words = train_tokenizer([*INSTRUCTIONS, "Task: , State: 128 0 255 64;\nAction: "], VOCABULARY)
    words.add_tokens([f"<more{i}>" for i in range(VOCABULARY - words.get_vocab_size())])
    words.post_processor = TemplateProcessing(single="<global> $A", special_tokens=[("<global>", BOS)])
    return words


def fields(
    type_: str, new: bool = True, cameras: tuple[str, ...] = ("front", "wrist"), **others: Any
) -> dict[str, Any]:
    """config.json. `new`: of lerobot 0.6.1, else of 0.4.4."""
    camera = {"type": "VISUAL", "shape": [3, 48, 64]}
    mode = "QUANTILES" if type_ == "pi05" else "MEAN_STD"
    found = {
        "type": type_,
        "n_obs_steps": 1,
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [JOINTS]},
            **{f"observation.images.{name}": camera for name in cameras},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [JOINTS]}},
        "device": "cpu",
        "use_amp": False,
        "push_to_hub": False,
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "dtype": "float32",
        "chunk_size": 5,
        "n_action_steps": 3,
        "max_state_dim": 32,
        "max_action_dim": 32,
        "num_inference_steps": 4,
        "time_sampling_beta_alpha": 1.5,
        "min_period": 0.004,
        "max_period": 4.0,
        "image_resolution": [SIDE, SIDE],
        "empty_cameras": 0,
        "tokenizer_max_length": 150 if type_ == "pi05" else 48,
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "gradient_checkpointing": False,
        "optimizer_lr": 2.5e-05,
        "scheduler_warmup_steps": 1000,
    }
    if new:
        relative = {"use_relative_actions": False, "relative_exclude_joints": ["gripper"], "action_feature_names": None}
        found |= relative | {"use_peft": False, "pretrained_revision": None}
    return found | others


def statistics(seed: int = 0) -> dict[str, np.ndarray]:
    """Of all kinds, by lerobot's names."""
    rng, found = np.random.default_rng(seed), {}
    for feature in ("observation.state", "action"):
        mean, std = rng.normal(size=JOINTS), rng.uniform(0.5, 2, JOINTS)
        rows = {"mean": mean, "std": std, "min": mean - 3 * std, "max": mean + 3 * std}
        rows |= {"q01": mean - 2.3 * std, "q99": mean + 2.4 * std, "q10": mean - 1.3 * std, "q90": mean + 1.3 * std}
        found |= {f"{feature}.{name}": row.astype(np.float32) for name, row in rows.items()}
    return found


def shapes(type_: str, tied: bool = False) -> dict[str, tuple[int, ...]]:
    """Every tensor of a file, by lerobot's name. `tied`: as 0.4 saves them, with the embedding under another name."""
    paligemma, expert = (f"model.paligemma_with_expert.{part}" for part in ("paligemma", "gemma_expert"))
    tower = f"{paligemma}.model.vision_tower.vision_model"
    found: dict[str, tuple[int, ...]] = {
        f"{tower}.embeddings.patch_embedding.weight": (VISION, 3, PATCH, PATCH),
        f"{tower}.embeddings.patch_embedding.bias": (VISION,),
        f"{tower}.embeddings.position_embedding.weight": ((SIDE // PATCH) ** 2, VISION),
    }

    def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = (outputs, inputs)
        if bias:
            found[f"{name}.bias"] = (outputs,)

    for layer in (f"{tower}.encoder.layers.{i}" for i in range(VISION_LAYERS)):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{name}", VISION, VISION)
        linear(f"{layer}.mlp.fc1", VISION, VISION_MLP)
        linear(f"{layer}.mlp.fc2", VISION_MLP, VISION)
        for norm in ("layer_norm1", "layer_norm2"):
            found |= {f"{layer}.{norm}.weight": (VISION,), f"{layer}.{norm}.bias": (VISION,)}
    found |= {f"{tower}.post_layernorm.weight": (VISION,), f"{tower}.post_layernorm.bias": (VISION,)}
    linear(f"{paligemma}.model.multi_modal_projector.linear", VISION, WIDTH)
    for stack, width, mlp, adaptive in (
        (f"{paligemma}.model.language_model", WIDTH, MLP, False),
        (f"{expert}.model", EXPERT, EXPERT_MLP, type_ == "pi05"),
    ):
        norms = [f"{stack}.norm"]
        for layer in (f"{stack}.layers.{i}" for i in range(LAYERS)):
            for name, inputs, outputs in (
                ("self_attn.q_proj", width, HEADS * HEAD),
                ("self_attn.k_proj", width, HEAD),
                ("self_attn.v_proj", width, HEAD),
                ("self_attn.o_proj", HEADS * HEAD, width),
                ("mlp.gate_proj", width, mlp),
                ("mlp.up_proj", width, mlp),
                ("mlp.down_proj", mlp, width),
            ):
                linear(f"{layer}.{name}", inputs, outputs, bias=False)
            norms += [f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm"]
        for norm in norms:
            if adaptive:
                linear(f"{norm}.dense", width, 3 * width)
            else:
                found[f"{norm}.weight"] = (width,)
    found[f"{paligemma}.lm_head.weight"] = (VOCABULARY, WIDTH)
    found[f"{expert}.lm_head.weight"] = (VOCABULARY, EXPERT)
    if not tied:
        found[f"{paligemma}.model.language_model.embed_tokens.weight"] = (VOCABULARY, WIDTH)
    linear("model.action_in_proj", 32, EXPERT)
    linear("model.action_out_proj", EXPERT, 32)
    if type_ == "pi05":
        linear("model.time_mlp_in", EXPERT, EXPERT)
        linear("model.time_mlp_out", EXPERT, EXPERT)
    else:
        linear("model.state_proj", 32, EXPERT)
        linear("model.action_time_mlp_in", 2 * EXPERT, EXPERT)
        linear("model.action_time_mlp_out", EXPERT, EXPERT)
    return found


def tensors(type_: str, tied: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights that keep activations in range."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) * (np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1)).astype(np.float32)
        for name, shape in shapes(type_, tied).items()
    }


def processors(values: Mapping[str, Any], new: bool = True) -> dict[str, dict[str, Any]]:
    """The two processor files."""
    type_, norm = values["type"], {"eps": 1e-8, "norm_map": values["normalization_mapping"]}
    relative, action = values.get("use_relative_actions", False), {"action": values["output_features"]["action"]}
    normalize = step("normalizer_processor", **norm, features=values["input_features"] | action)
    normalize["state_file"] = f"policy_preprocessor_step_{STEPS[type_] + new}_normalizer_processor.safetensors"
    names = ("exclude_joints", "relative_exclude_joints"), ("action_names", "action_feature_names")
    told = [step("relative_actions_processor", enabled=relative, **{k: values.get(v) for k, v in names})] if new else []
    words = step(
        "tokenizer_processor",
        max_length=values["tokenizer_max_length"],
        task_key="task",
        padding_side="right",
        padding="max_length",
        truncation=True,
        tokenizer_name="google/paligemma-3b-pt-224",
    )
    start = [step("rename_observations_processor", rename_map={}), step("to_batch_processor")]
    device = step("device_processor", device="cpu", float_dtype=None)
    if type_ == "pi05":
        before = [*start, *told, normalize, step("pi05_prepare_state_tokenizer_processor_step"), words, device]
    else:
        before = [*start, step("pi0_new_line_processor"), words, device, *told, normalize]
    undo = step("unnormalizer_processor", **norm, features=action) | {"state_file": POST_FILE}
    after = [undo, *([step("absolute_actions_processor", enabled=relative)] if new else []), device]
    return {
        "policy_preprocessor": {"name": "policy_preprocessor", "steps": before},
        "policy_postprocessor": {"name": "policy_postprocessor", "steps": after},
    }


def step(name: str, **config: Any) -> dict[str, Any]:
    return {"registry_name": name, "config": config}


def write(
    directory: Path,
    type_: str,
    new: bool = True,
    known: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    **others: Any,
) -> Path:
    """A policy directory, with a tokenizer put into it.

    Args:
      directory: made here.
      type_: "pi0" or "pi05".
      new: in the layout of lerobot 0.6.1, else of 0.4.4.
      known: statistics, see `statistics`; {} for a policy that has none.
      weights: see `tensors`.
      others: put over `fields`.
    """
    directory.mkdir(parents=True)
    values = fields(type_, new, **others)
    (directory / "config.json").write_text(json.dumps(values))
    save_file(dict(tensors(type_, not new) if weights is None else weights), directory / "model.safetensors")
    known = statistics() if known is None else known
    for name, content in processors(values, new).items():
        for each in content["steps"]:
            if "state_file" in each and known:
                save_file(dict(known), directory / each["state_file"])
            elif "state_file" in each:
                del each["state_file"]
        (directory / f"{name}.json").write_text(json.dumps(content))
    tokenizer().save(str(directory / "tokenizer.json"))
    return directory
