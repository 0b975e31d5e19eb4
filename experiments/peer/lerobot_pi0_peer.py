"""lerobot's pi0 and pi0.5, small, as a process that is asked questions: see `lerobot_peer`.

The sizes of lerobot's networks are fixed; `SIZES` are put in their place here, and nothing else is changed in 0.6.1.
lerobot 0.4.4 wants a transformers whose Gemma and PaliGemma openpi has rewritten (the branch fix/lerobot_openpi; it
refuses any other). Where that is not installed, `patched_gemma` does what those files change.
"""

import contextlib
import importlib
import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import lerobot_peer
import numpy as np
import torch
from answering import answer

SIZES = {  # of a variant, as in lerobot's GemmaConfig; heads are fixed there
    "gemma_2b": dict(width=32, depth=3, mlp_dim=40, num_heads=8, num_kv_heads=1, head_dim=8),
    "gemma_300m": dict(width=24, depth=3, mlp_dim=36, num_heads=8, num_kv_heads=1, head_dim=8),
}
VISION = dict(hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=16, patch_size=14)
VOCABULARY = 320


class Pi0Peer(lerobot_peer.Peer):
    """Policies of both types."""

    def write_policy(self, directory, fields, tokenizer, statistics=None, seed=0):
        """A policy with random weights, and its processors, as this lerobot saves them.

        Args:
          directory: made here.
          fields: of config.json, with `type`; lerobot's defaults for the others.
          tokenizer: a tokenizer.json, with <pad>.
          statistics: .npz with "observation.state/mean" and the like, or None.
          seed: of the weights.
        """
        kind, modeling = self._import(fields["type"], tokenizer)
        from lerobot.configs.policies import PreTrainedConfig

        Path(directory).mkdir()
        (Path(directory) / "config.json").write_text(json.dumps(fields))
        config = PreTrainedConfig.from_pretrained(directory)
        with contextlib.redirect_stdout(sys.stderr):
            policy = getattr(modeling, f"{kind}Policy")(config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in policy.named_parameters():
                scale = p.shape[-1] ** -0.5 if p.ndim > 1 else 0.1
                if "dense.weight" in name:
                    scale *= 0.5
                p.copy_(scale * torch.randn(p.shape, generator=generator))
        policy.save_pretrained(directory)
        known = None
        if statistics is not None:
            known = {}
            for name, value in np.load(statistics).items():
                feature, stat = name.split("/")
                known.setdefault(feature, {})[stat] = torch.from_numpy(value)
        for processor in self._factory(fields["type"])(config, known):
            processor.save_pretrained(directory)
        return {"tensors": len(policy.state_dict())}

    def act(self, policy, file, task, tokenizer, adapter=None):
        """A chunk of commands from one look at a robot, through the saved processors.

        Args:
          policy: a directory.
          file: .npz with "observation.state" (state,), a picture (H, W, 3) uint8 of each camera, and `noise`.
          task: what the robot is told.
          tokenizer: a tokenizer.json, with <pad>.
          adapter: a directory of peft's, put on the policy; its own processors and config are the ones that count.
        """
        where = adapter or policy
        type_ = json.loads((Path(where) / "config.json").read_text())["type"]
        kind, modeling = self._import(type_, tokenizer)
        from lerobot.configs.policies import PreTrainedConfig

        data = dict(np.load(file))
        noise = torch.from_numpy(data.pop("noise"))
        config = PreTrainedConfig.from_pretrained(where)
        config.device, config.use_peft = "cpu", False
        said = []
        with contextlib.redirect_stdout(types.SimpleNamespace(write=said.append, flush=lambda: None)):
            loaded = getattr(modeling, f"{kind}Policy").from_pretrained(policy, config=config, strict=True).eval()
        # lerobot goes on where weights cannot be loaded. 0.4.4 misses the embedding in what it has saved itself, under
        # its other name; the two are one tensor.
        named = set(re.findall(r'"(model\.[^"]+)"', "".join(said)))
        if named - {"model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"} or any(
            "Could not" in each and not named for each in said
        ):
            raise ValueError("".join(said))
        if adapter:
            import peft

            loaded = peft.PeftModel.from_pretrained(loaded, adapter)
        before, after = self._processors(config, where)
        batch = {
            key: torch.from_numpy(np.moveaxis(value, -1, 0) / np.float32(255) if value.ndim == 3 else value)[None]
            for key, value in data.items()
        }
        batch = before(batch | {"task": [task]})
        with torch.inference_mode():
            chunk = loaded.predict_action_chunk(batch, noise=noise)
        commands = torch.stack([after(chunk[:, step]) for step in range(chunk.shape[1])], 1)
        tokens, mask = (batch[f"observation.language.{name}"] for name in ("tokens", "attention_mask"))
        return {"commands": commands[0].tolist(), "tokens": tokens[0][mask[0].bool()].tolist()}

    def _import(self, type_, tokenizer):
        lerobot_peer._import_lerobot()
        import transformers
        from lerobot.processor import tokenizer_processor

        modeling = importlib.import_module(f"lerobot.policies.{type_}.modeling_{type_}")
        if not hasattr(modeling, "small_here"):
            modeling.small_here = True
            if hasattr(modeling, "GemmaForCausalLM"):
                patched_gemma(modeling)
            modeling.get_gemma_config = lambda variant: modeling.GemmaConfig(**SIZES[variant])
            for name in ("PaliGemmaForConditionalGeneration", "GemmaForCausalLM"):
                for own in (name, f"{name}WithPiGemma", f"Pi{name}"):
                    if hasattr(modeling, own):
                        setattr(modeling, own, _small(getattr(modeling, own)))
        words = transformers.PreTrainedTokenizerFast(tokenizer_file=tokenizer, pad_token="<pad>", padding_side="left")
        tokenizer_processor.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda name: words)
        return {"pi0": "PI0", "pi05": "PI05"}[type_], modeling

    def _factory(self, type_):
        module = importlib.import_module(f"lerobot.policies.{type_}.processor_{type_}")
        return getattr(module, f"make_{type_}_pre_post_processors")

    def _processors(self, config, directory):
        self._factory(config.type)  # registers its steps
        import lerobot

        if not lerobot.__version__.startswith("0.4."):
            from lerobot.policies.factory import make_pre_post_processors

            return make_pre_post_processors(config, directory)
        from lerobot.processor import PolicyProcessorPipeline
        from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

        before = PolicyProcessorPipeline.from_pretrained(directory, config_filename="policy_preprocessor.json")
        return before, PolicyProcessorPipeline.from_pretrained(
            directory,
            config_filename="policy_postprocessor.json",
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        )


def _small(cls):
    """The class with a small vision tower and vocabulary."""

    def build(config):
        text = getattr(config, "text_config", config)
        text.vocab_size, text.pad_token_id = VOCABULARY, 0
        if text is not config:
            config._vocab_size = VOCABULARY
            for name, value in {**VISION, "projection_dim": text.hidden_size}.items():
                setattr(config.vision_config, name, value)
        return cls(config=config)

    return build


def patched_gemma(modeling):
    """What lerobot 0.4.4's transformers has beside the released one, put into the latter.

    Norms that take a condition and give a gate; a decoder that does not scale its input, takes a condition, and, unless
    it is asked to fill the cache, leaves that as it is; pictures that are not scaled down, and are narrowed once they
    are embedded. Where the rewritten files are installed, nothing is done.
    """
    import transformers.models.siglip as siglip
    from transformers.models.gemma import modeling_gemma as gemma
    from transformers.models.paligemma import modeling_paligemma as paligemma

    if not hasattr(siglip, "made_here") and importlib.util.find_spec("transformers.models.siglip.check"):
        return
    siglip.made_here = True
    check = types.ModuleType("transformers.models.siglip.check")
    check.check_whether_transformers_replace_is_installed_correctly = lambda: True
    sys.modules[check.__name__] = siglip.check = check
    gemma._gated_residual = lambda x, y, gate: x + y if gate is None else x + y * gate

    class Norm(torch.nn.Module):
        def __init__(self, width, eps, condition):
            super().__init__()
            self.eps = eps
            if condition is None:
                self.weight = torch.nn.Parameter(torch.zeros(width))
            else:
                self.dense = torch.nn.Linear(condition, 3 * width)

        def forward(self, x, cond=None):
            normed = x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
            if cond is None:
                return (normed * (1 + self.weight.float())).to(x.dtype), None
            scale, shift, gate = self.dense(cond)[:, None].chunk(3, dim=-1)
            return (normed * (1 + scale) + shift).to(x.dtype), gate.to(x.dtype)

    class Model(gemma.GemmaModel):
        def __init__(self, config):
            super().__init__(config)
            condition = config.adarms_cond_dim if getattr(config, "use_adarms", False) else None
            for layer in self.layers:
                for name in ("input_layernorm", "post_attention_layernorm"):
                    setattr(layer, name, Norm(config.hidden_size, config.rms_norm_eps, condition))
            self.norm = Norm(config.hidden_size, config.rms_norm_eps, condition)

        def forward(
            self, inputs_embeds, attention_mask, position_ids, past_key_values=None, use_cache=False, adarms_cond=None
        ):
            h, kept = inputs_embeds.to(self.layers[0].self_attn.q_proj.weight.dtype), []
            cos, sin = self.rotary_emb(h, position_ids)
            for number, layer in enumerate(self.layers):
                attention = layer.self_attn
                z, gate = layer.input_layernorm(h, cond=adarms_cond)
                maps = (attention.q_proj, attention.k_proj, attention.v_proj)
                q, k, v = (m(z).view(*z.shape[:2], -1, attention.head_dim).transpose(1, 2) for m in maps)
                q, k = gemma.apply_rotary_pos_emb(q, k, cos, sin)
                if past_key_values is not None:
                    k, v = (torch.cat(pair, dim=2) for pair in zip(past_key_values[number], (k, v), strict=True))
                kept.append((k, v))
                out, _ = gemma.eager_attention_forward(attention, q, k, v, attention_mask, attention.scaling)
                h = gemma._gated_residual(h, attention.o_proj(out.reshape(*z.shape[:2], -1)), gate)
                z, gate = layer.post_attention_layernorm(h, cond=adarms_cond)
                h = gemma._gated_residual(h, layer.mlp(z), gate)
            h, _ = self.norm(h, cond=adarms_cond)
            return types.SimpleNamespace(last_hidden_state=h, past_key_values=kept if use_cache else None)

    def causal(config):
        built = gemma.GemmaForCausalLM(config)
        built.model = Model(config)
        return built

    def vision_language(config):
        built = paligemma.PaliGemmaForConditionalGeneration(config)
        built.model.language_model = Model(config.text_config)
        built.tie_weights()

        def narrowed(encoder, given, named):  # pictures are embedded in float32
            dtype = encoder.layers[0].mlp.fc1.weight.dtype
            return given, {**named, "inputs_embeds": named["inputs_embeds"].to(dtype)}

        built.model.vision_tower.vision_model.encoder.register_forward_pre_hook(narrowed, with_kwargs=True)
        built.model.get_image_features = lambda x: built.model.multi_modal_projector(
            built.model.vision_tower(x).last_hidden_state
        )
        return built

    modeling.GemmaForCausalLM, modeling.PaliGemmaForConditionalGeneration = causal, vision_language
    modeling.modeling_gemma = gemma


if __name__ == "__main__":
    torch.manual_seed(0)
    answer(Pi0Peer())
