"""lerobot's SmolVLA with peft, as a process that is asked questions: for comparison, in an environment of its own.

lerobot 0.4.4 is there with what SmolVLA uses of it; 0.6.1 as it is installed from the registry. The process reads one
JSON object a line on standard input, and answers with one on standard output. But for the plugin, it imports neither
JAX nor metalora_jax. `experiments/benchmark.py` and the tests marked `lerobot` start it; `make peer` makes its
environments.
"""

import contextlib
import json
import sys
import time
import types
from pathlib import Path

import numpy as np
import stand_ins
import torch
from answering import answer

_OPTIONAL = (  # what lerobot imports for data sets and other policies
    *("torchvision", "datasets", "jsonlines", "pyarrow", "av", "deepdiff", "wandb", "imageio", "cv2", "gymnasium"),
    *("serial", "diffusers", "pandas"),
)
_UNUSED = stand_ins.missing(_OPTIONAL)


def _import_lerobot():
    from transformers.models.smolvlm import modeling_smolvlm  # noqa: F401  looks for torchvision, and must find none

    stand_ins.install(_UNUSED)
    from lerobot.policies.smolvla import modeling_smolvla, smolvlm_with_expert

    return modeling_smolvla, smolvlm_with_expert


class _Reader:
    """torchvision's VideoReader on PyAV, as it was; newer torchvisions have none."""

    def __init__(self, path, stream):
        import av

        self.container = av.open(path)

    def seek(self, time, keyframes_only):
        self.container.seek(int(time * 1e6), any_frame=not keyframes_only)

    def __iter__(self):
        for frame in self.container.decode(video=0):
            yield {"data": torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1), "pts": frame.time}


class Peer:
    """One policy, perhaps with an adapter, and the batch that it was given."""

    def load(self, policy, vlm, adapter=None, lora=None, device="cpu"):
        """Loads lerobot's policy in float32, then peft's adapter: from a directory, or a fresh one of a LoraConfig.

        On another device than the CPU it computes in bfloat16, by torch's autocast.
        """
        self.device = device
        modeling, towers = _import_lerobot()
        import transformers
        from lerobot.configs.policies import PreTrainedConfig
        from transformers.models.smolvlm import modeling_smolvlm

        def embed(self, pixel_values, patch_attention_mask):
            # transformers 4 computes other position ids in float32 than in bfloat16, off by one along each axis.
            patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
            return patches + self.position_embedding(torch.arange(patches.shape[1]))[None]

        if transformers.__version__.startswith("4."):
            modeling_smolvlm.SmolVLMVisionEmbeddings.forward = embed
        tokenizer = types.SimpleNamespace(fake_image_token_id=49189, global_image_token_id=49152)
        towers.AutoProcessor = types.SimpleNamespace(
            from_pretrained=lambda _: types.SimpleNamespace(tokenizer=tokenizer)
        )
        config = PreTrainedConfig.from_pretrained(policy)
        config.load_vlm_weights, config.vlm_model_name, config.device, config.use_peft = False, vlm, "cpu", False
        with contextlib.redirect_stdout(sys.stderr):
            self.policy = modeling.SmolVLAPolicy.from_pretrained(policy, config=config, strict=True).float()
        self.policy.requires_grad_(False)
        if adapter or lora:
            import peft

            if adapter:
                self.policy = peft.PeftModel.from_pretrained(self.policy, adapter, is_trainable=True)
            else:
                self.policy = peft.get_peft_model(self.policy, peft.LoraConfig(**lora))
        self.model = self.policy.base_model.model.model if adapter or lora else self.policy.model
        self.policy.to(device)
        self.theta = {name: p for name, p in self.policy.named_parameters() if p.requires_grad}
        return {"trainable": sum(p.numel() for p in self.theta.values()), "tensors": len(self.theta)}

    def batch(self, file):
        """Inputs of the flow-matching model: images (B, C, 3, H, W) in [-1, 1], and the rest under the names below."""
        data = {name: torch.from_numpy(value).to(self.device) for name, value in np.load(file).items()}
        images, masks = data["images"].unbind(1), data["image_mask"].unbind(1)
        self.prefix = [list(images), list(masks), data["tokens"].long(), data["token_mask"], data["state"]]
        self.target = [data["actions"], data["noise"], data["t"]]
        return {}

    def _loss(self, rows=slice(None)):
        prefix = [[x[rows] for x in part] if isinstance(part, list) else part[rows] for part in self.prefix]
        with self._precision():
            return self.model.forward(*prefix, *(x[rows] for x in self.target)).mean()

    def _precision(self):
        return contextlib.nullcontext() if self.device == "cpu" else torch.autocast(self.device, torch.bfloat16)

    def _wait(self):
        if self.device != "cpu":
            torch.cuda.synchronize()

    def loss(self):
        """The mean over all elements, with the batch's own noise and time."""
        with torch.no_grad():
            return {"loss": self._loss().item()}

    def gradients(self, file):
        """The gradient of every trainable tensor, by peft's names."""
        loss = self._loss()
        grads = torch.autograd.grad(loss, list(self.theta.values()), allow_unused=True)
        pairs = zip(self.theta.items(), grads, strict=True)
        np.savez(file, **{name: (torch.zeros_like(p) if g is None else g).numpy() for (name, p), g in pairs})
        return {"loss": loss.item()}

    def save_adapter(self, directory):
        """peft's files of the adapter."""
        self.policy.save_pretrained(directory)
        return {}

    def tokenize(self, tokenizer, texts, length):
        """As lerobot's TokenizerProcessorStep does, after its newline step."""
        from transformers import PreTrainedTokenizerFast

        made = PreTrainedTokenizerFast(tokenizer_file=tokenizer, pad_token="<pad>", truncation_side="left")
        lines = [text if text.endswith("\n") else f"{text}\n" for text in texts]
        out = made(lines, max_length=length, truncation=True, padding="max_length", padding_side="right")
        return {"ids": out["input_ids"], "mask": out["attention_mask"]}

    def normalize(self, directory, state, action):
        """A state through the saved preprocessor, and an action through the saved postprocessor, without the text."""
        _import_lerobot()
        from lerobot.policies.smolvla import processor_smolvla  # noqa: F401  registers its steps
        from lerobot.processor import PolicyProcessorPipeline, TokenizerProcessorStep
        from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action

        TokenizerProcessorStep.__post_init__ = lambda self: None
        TokenizerProcessorStep.__call__ = lambda self, transition: transition
        before = PolicyProcessorPipeline.from_pretrained(directory, config_filename="policy_preprocessor.json")
        after = PolicyProcessorPipeline.from_pretrained(
            directory,
            config_filename="policy_postprocessor.json",
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        )
        seen = before({"observation.state": torch.tensor(state), "task": "push"})
        return {"state": seen["observation.state"][0].tolist(), "action": after(torch.tensor([action]))[0].tolist()}

    def prepare(self, source, size, file):
        """lerobot's resize_with_pad, and the change of range."""
        modeling, _ = _import_lerobot()
        images = torch.from_numpy(np.load(source))  # (B, 3, H, W) in [0, 1]
        np.save(file, (modeling.resize_with_pad(images, size, size, pad_value=0) * 2 - 1).numpy())
        return {}

    def read_dataset(self, root, file):
        """Every frame of a dataset, as lerobot's own class gives it."""
        _import_lerobot()
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        if "torchvision" in _UNUSED:
            self._without_torchvision()
        dataset = LeRobotDataset("local/dataset", root=root, video_backend="pyav")
        frames = [dataset[i] for i in range(len(dataset))]
        keys = [key for key, value in frames[0].items() if torch.is_tensor(value)]
        np.savez(file, **{key: torch.stack([frame[key] for frame in frames]).numpy() for key in keys})
        told = {"episodes": dataset.num_episodes, "fps": dataset.fps, "robot": dataset.meta.robot_type}
        return told | {"tasks": [frame["task"] for frame in frames]}

    def record(self, root, source, how):
        """A dataset as lerobot writes it, see `recording.write`; the numbers of the episodes that are left."""
        _import_lerobot()
        import lerobot
        import recording

        if "torchvision" in _UNUSED:
            self._without_torchvision()
        with contextlib.redirect_stdout(sys.stderr):
            return {"left": recording.write(root, source, how, not lerobot.__version__.startswith("0.4."))}

    def _without_torchvision(self):
        """What lerobot 0.4.4 takes from torchvision, whose wheels fit one build of torch only."""
        from lerobot.datasets import utils, video_utils

        utils.transforms.ToTensor = lambda: lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        video = types.SimpleNamespace(VideoReader=_Reader)
        video_utils.torchvision = types.SimpleNamespace(io=video, set_video_backend=lambda backend: None)

    def write_policy(self, directory, fields, tokenizer):
        """A policy with random weights as lerobot 0.6.1 saves one, and its vision-language model's processor.

        Args:
          directory: made here.
          fields: of config.json; `vlm_model_name` is a directory with a config.json, to which the processor is added.
          tokenizer: a tokenizer.json, with <pad>, <fake> and <global>.
        """
        import transformers
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import make_pre_post_processors
        from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

        named = {"fake_image_token": "<fake>", "global_image_token": "<global>", "image_token": "<fake>"}
        words = transformers.PreTrainedTokenizerFast(
            tokenizer_file=tokenizer, pad_token="<pad>", extra_special_tokens=named
        )
        parts = transformers.SmolVLMImageProcessor(), words, transformers.SmolVLMVideoProcessor()
        transformers.SmolVLMProcessor(*parts, chat_template=" ").save_pretrained(fields["vlm_model_name"])
        Path(directory).mkdir()
        (Path(directory) / "config.json").write_text(json.dumps(fields))
        config = PreTrainedConfig.from_pretrained(directory)
        policy = SmolVLAPolicy(config)
        policy.save_pretrained(directory)
        for processor in make_pre_post_processors(config):
            processor.save_pretrained(directory)
        return {}

    def act(self, policy, file, task, rename_map, noise=None):
        """A chunk of commands from one look at a robot, by the functions and in the order of lerobot-rollout.

        Args:
          policy: a directory in which its base, if it names one, is found by its path.
          file: .npz with "observation.state" (state,), a picture (H, W, 3) uint8 of each camera, and `noise`.
          task: what the robot is told.
          rename_map: as --rename_map.
          noise: the name of the sampler's noise (1, chunk, max_action_dim) in the file; None leaves it to the policy.
        """
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import make_pre_post_processors
        from lerobot.policies.utils import prepare_observation_for_inference
        from lerobot.rollout.context import _load_pretrained_policy
        from lerobot.utils.import_utils import register_third_party_plugins

        register_third_party_plugins()
        data = dict(np.load(file))
        given = {} if noise is None else {"noise": torch.from_numpy(data.pop(noise))}
        with contextlib.chdir(policy), contextlib.redirect_stdout(sys.stderr):
            config = PreTrainedConfig.from_pretrained(".")
            config.pretrained_path, config.device = ".", "cpu"
            loaded = _load_pretrained_policy(config).eval()
            renamed = {
                "device_processor": {"device": "cpu"},
                "rename_observations_processor": {"rename_map": rename_map},
            }
            before, after = make_pre_post_processors(config, ".", preprocessor_overrides=renamed)
        batch = before(prepare_observation_for_inference(data, torch.device("cpu"), task, "fake"))
        with torch.inference_mode():
            chunk = after(loaded.predict_action_chunk(batch, **given))
        return {"commands": chunk[0].tolist()}

    def noise(self, seed, shape):
        """What torch draws after that seed."""
        torch.manual_seed(seed)
        return {"noise": torch.normal(0.0, 1.0, shape).tolist()}

    def plugin(self, policy, file, task, delay, horizon):
        """The plugin's chunks, free and going on from another, and what it refuses; lerobot's guidance beside ours."""
        import jax
        from lerobot.policies.factory import get_policy_class
        from lerobot.policies.rtc.configuration_rtc import RTCConfig
        from lerobot.utils.import_utils import register_third_party_plugins

        register_third_party_plugins()
        with contextlib.redirect_stdout(sys.stderr):
            loaded = get_policy_class("metalora").from_pretrained(policy)
        data = np.load(file)
        batch = {key: torch.from_numpy(np.moveaxis(data[key], -1, 1) / np.float32(255)) for key in data if "im" in key}
        batch |= {"observation.state": torch.from_numpy(data["observation.state"][None]), "task": [task]}
        timed, listen = [], lambda name, duration, **_: timed.append(name)
        jax.monitoring.register_event_duration_secs_listener(listen)
        free = loaded.predict_action_chunk(batch)
        jax.monitoring.unregister_event_duration_listener(listen)
        loaded.config.rtc_config = RTCConfig(execution_horizon=horizon)
        loaded.init_rtc_processor()
        left = torch.from_numpy(data["left"])
        padded = torch.cat([left, torch.zeros(3, left.shape[1])])  # as lerobot fills up what is left
        bound = loaded.predict_action_chunk(batch, inference_delay=delay, prev_chunk_left_over=padded)
        answer = {"free": free[0].tolist(), "bound": bound[0].tolist(), "constant": self._constant(loaded.config)}
        answer["compiled"] = sum("backend_compile" in name for name in timed)
        picture = batch.pop("observation.images.front")
        others = {f"observation.images.{name}": picture for name in ("frontal", "side")}
        for name, work in (
            ("absent", lambda: loaded.predict_action_chunk(batch | others)),
            ("training", lambda: loaded.forward(batch)),
        ):
            try:
                work()
            except (ValueError, NotImplementedError) as error:
                answer[name] = str(error)
        return answer

    def _constant(self, config):
        """A velocity that does not depend on the actions, guided by lerobot and by us."""
        import jax.numpy as jnp
        from lerobot.policies.rtc.modeling_rtc import RTCProcessor

        from metalora_jax.policies import flow

        rng = np.random.default_rng(0)
        x, before, v = rng.normal(size=(3, 1, 10, 4)).astype(np.float32)
        processor, out = RTCProcessor(config.rtc_config), {"ours": [], "theirs": []}
        weights = jnp.asarray(processor.get_prefix_weights(2, 5, 10).numpy())
        for t in (1.0, 0.6, 0.1):
            guided = processor.denoise_step(
                torch.from_numpy(x), torch.from_numpy(before), 2, t, lambda x_t: torch.from_numpy(v)
            )
            steered = flow.guided(lambda x_t, t: jnp.asarray(v), jnp.asarray(before), weights, 10.0)
            out["theirs"].append(guided.tolist())
            out["ours"].append(np.asarray(steered(jnp.asarray(x), jnp.array([t]))).tolist())
        return out

    def timed(self, work, **options):
        """Seconds of a piece of work, on the wall and of the processor; the device's highest memory meanwhile."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here on
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        getattr(self, f"work_{work}")(**options)
        self._wait()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        peak_gib = peak / 2**20 if self.device == "cpu" else torch.cuda.max_memory_allocated() / 2**30
        return {"wall": wall, "cpu": cpu, "peak_gib": peak_gib}

    def cache_vision(self):
        """From here on the vision tower's output is looked up, as a user of torch could do, too."""
        tower, seen = self.model.vlm_with_expert, {}
        compute = type(tower).embed_image

        def embed_image(image):
            key = (image.data_ptr(), image.shape[0])
            if key not in seen:
                with torch.no_grad():
                    seen[key] = compute(tower, image)
            return seen[key]

        tower.embed_image = embed_image
        return {}

    def work_step(self, frames=4, rate=1e-4):
        """One LoRA step: loss, gradient, SGD in place."""
        self._step(slice(0, frames), rate)

    def work_meta_step(self, tasks=4, steps=5, frames=4, rate=1e-4):
        """First-order MAML: `steps` steps on a task's support frames, then the query's gradient, for every task."""
        start = {name: p.detach().clone() for name, p in self.theta.items()}
        total = {name: torch.zeros_like(p) for name, p in self.theta.items()}
        for task in range(tasks):
            support = slice(2 * frames * task, 2 * frames * task + frames)
            for _ in range(steps):
                self._step(support, rate)
            gradient = self._gradient(slice(support.stop, support.stop + frames))
            with torch.no_grad():
                for name, p in self.theta.items():
                    total[name] += gradient[name] / tasks
                    p.copy_(start[name])

    def work_sample(self):
        """A chunk of actions for the first frame."""
        with torch.no_grad(), self._precision():
            prefix = [[x[:1] for x in part] if isinstance(part, list) else part[:1] for part in self.prefix]
            self.model.sample_actions(*prefix, noise=self.target[1][:1])

    def matmul_rate(self, size, repeats=8):
        """The device's ceiling as torch reaches it: operations of a large product per processor and per wall second."""
        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        a = torch.ones(size, size, device=self.device, dtype=dtype)
        a @ a
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            a @ a
        self._wait()
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        return {clock: 2 * size**3 * repeats / each for clock, each in seconds.items()}

    def _gradient(self, rows):
        grads = torch.autograd.grad(self._loss(rows), list(self.theta.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self.theta.items(), grads, strict=True)
        }

    def _step(self, rows, rate):
        gradient = self._gradient(rows)
        with torch.no_grad():
            for name, p in self.theta.items():
                p.sub_(rate * gradient[name])


if __name__ == "__main__":
    torch.manual_seed(0)
    answer(Peer())
