"""Base and adapter as a lerobot policy: torch tensors at its doors, `metalora_jax.Agent` inside."""

import difflib
import logging
import time
from collections import deque
from pathlib import Path

import jax
import numpy as np
import torch
from huggingface_hub import snapshot_download
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.policies.rtc.modeling_rtc import RTCProcessor
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from torch import Tensor

import metalora_jax as ml
from lerobot_policy_metalora.configuration_metalora import MetaloraConfig
from metalora_jax.adaptation.agent import Executing
from metalora_jax.machine import caches

logger = logging.getLogger(__name__)
_PICTURES = f"{OBS_IMAGES}."
_NOT_TRAINED = "a metalora policy runs in lerobot and is not trained or saved there; adapt it with metalora adapt"


class MetaloraPolicy(PreTrainedPolicy):
    """Commands in the robot's own units; what goes in is in its own units, too."""

    config_class = MetaloraConfig
    name = "metalora"

    def __init__(self, config: MetaloraConfig, directory: str | Path | None = None, **_):
        """Loads and compiles; `directory` holds config.json, and what it names beside it."""
        super().__init__(config)
        if directory is None:
            raise ValueError("a metalora policy comes from a directory that metalora export wrote; pass --policy.path")
        caches.keep_compiled()
        directory = Path(directory)
        base = directory / config.base
        self._base = ml.load_base(base if base.is_dir() else config.base)
        adapted = ml.load_adapter(directory / config.adapter, self._base).learner if config.adapter else None
        self._agent = ml.Agent(self._base, adapted)
        if self._agent.only_for is not None:
            logger.info("metalora: the adapter is only for %s; else the base acts", ", ".join(self._agent.only_for))
        self._check(directory)
        self._chunks = 0
        self._key = jax.random.key(config.seed)
        self.reset()
        self._compile(None)

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path, *, config=None, revision=None, **_):
        """A policy directory, or its name on the hub."""
        directory = Path(pretrained_name_or_path)
        if not directory.is_dir():
            directory = Path(snapshot_download(str(pretrained_name_or_path), revision=revision))
        policy = cls(config or MetaloraConfig.from_pretrained(directory), directory)
        return policy.eval()

    def _check(self, directory: Path) -> None:
        config, sizes = self.config, self._base.sizes
        if not 0 < len(config.cameras) <= sizes.cameras:
            shown = ", ".join(config.cameras) or "none"
            raise ValueError(f"{directory}: cameras are {shown}, the base takes 1 to {sizes.cameras}; export it again")
        if config.chunk_size != sizes.chunk:
            raise ValueError(
                f"{directory}: chunk_size is {config.chunk_size}, but the base's chunks have {sizes.chunk} steps; "
                "export it again"
            )

    def _compile(self, executing: Executing | None) -> None:
        """The first frame would else take seconds, with the robot waiting."""
        begun = time.perf_counter()
        known = self.config.image_features.get(_PICTURES + self.config.cameras[0])
        size = self._base.sizes.image
        height, width = known.shape[1:] if known else (size, size)
        pictures = np.zeros((len(self.config.cameras), height, width, 3), np.uint8)
        key = jax.random.fold_in(self._key, 0)  # as for a frame: this, too, is compiled
        # An adapter that is for some instructions alone leaves the others to the base, which is another program.
        for text in ("", *(self._agent.only_for or ())[:1]):
            self._agent.act(pictures, self._base.statistics.state_mean, text, key, executing)
        what = "its sampler" if executing is None else "its sampler for real-time chunking"
        logger.info("metalora: compiled %s in %.1f s on %s", what, time.perf_counter() - begun, jax.default_backend())

    def reset(self) -> None:
        """Forgets what is left of the last chunk."""
        self._queue: deque[Tensor] = deque()

    def supports_rtc(self) -> bool:
        """Yes, see `metalora_jax.policies.flow.guided`."""
        return True

    def init_rtc_processor(self) -> None:
        """Called by lerobot when it has set `config.rtc_config`."""
        if self._chunks_go_on():
            commands = self._base.statistics.action_mean[None]
            self._compile(Executing(commands, np.ones(1), self.config.rtc_config.max_guidance_weight))

    def _chunks_go_on(self) -> bool:
        return self.config.rtc_config is not None and self.config.rtc_config.enabled

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], **_) -> Tensor:
        """One command for each of B robots, (B, action_dim)."""
        if self._chunks_go_on():
            raise ValueError("real-time chunking asks for whole chunks (predict_action_chunk), not for single actions")
        if not self._queue:
            chunk = self.predict_action_chunk(batch)
            self._queue.extend(chunk.transpose(0, 1)[: self.config.n_action_steps or None])
        return self._queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **_,
    ) -> Tensor:
        """(B, chunk, action_dim) in the robot's units.

        Args:
          batch: pictures (B, 3, H, W) in [0, 1], the state (B, state_dim), and "task", the B instructions.
          inference_delay: steps that the robot will have executed when this chunk begins to be used.
          prev_chunk_left_over: (n, action_dim) what is left of the last chunk after the command of the observed step,
            in the robot's units; lerobot fills it up with zeros.
        """
        pictures = self._pictures(batch)
        state = batch[OBS_STATE].cpu().numpy()
        texts = batch.get("task") or ""
        texts = [texts] * len(state) if isinstance(texts, str) else list(texts)
        executing = self._executing(inference_delay, prev_chunk_left_over)
        key = jax.random.fold_in(self._key, self._chunks)
        self._chunks += 1
        out = np.empty((len(state), self._base.sizes.chunk, len(self._base.statistics.action_mean)), np.float32)
        for number, text in enumerate(dict.fromkeys(texts)):
            rows = [row for row, told in enumerate(texts) if told == text]
            chosen = key if number == 0 else jax.random.fold_in(key, number)
            out[rows] = self._agent.act(pictures[rows], state[rows], text, chosen, executing)
        return torch.from_numpy(out).to(batch[OBS_STATE].device)

    def _pictures(self, batch: dict[str, Tensor]) -> np.ndarray:
        """(B, C, H, W, 3) uint8, in the order of the base."""
        there = [key.removeprefix(_PICTURES) for key in batch if key.startswith(_PICTURES)]
        found = []
        for camera in self.config.cameras:
            if camera not in there:
                [near] = difflib.get_close_matches(camera, there, 1, 0.0) or [None]
                hint = f"did you mean {near}? Name it {camera}" if near else f"name one {camera}"
                shown = ", ".join(there) or "none"
                remap = f'--rename_map=\'{{"{_PICTURES}{near or "NAME"}": "{_PICTURES}{camera}"}}\''
                raise ValueError(
                    f"the policy needs the camera {camera}, the robot's are {shown}; {hint} in the robot's config, or "
                    f"pass {remap}"
                )
            picture = batch[_PICTURES + camera].cpu().numpy()
            if picture.dtype != np.uint8:
                picture = np.rint(picture * 255).astype(np.uint8)
            found.append(np.moveaxis(picture, 1, -1))
        if len(shapes := {picture.shape[1:3] for picture in found}) > 1:
            shown = " and ".join(f"{height} x {width}" for height, width in sorted(shapes))
            raise ValueError(f"the cameras show {shown} pixels; give all of them one width and height, as in training")
        return np.stack(found, axis=1)

    def _executing(self, delay: int | None, left: Tensor | None) -> Executing | None:
        if left is None or not self._chunks_go_on():
            return None
        # lerobot-rollout takes the command of the observed step off before it asks: what is left begins at step 1. The
        # command of step 0 is not known here and has no weight; lerobot drops at least this step of the new chunk.
        commands = left.reshape(-1, left.shape[-1]).cpu().numpy()[: self._base.sizes.chunk - 1]
        used = np.flatnonzero(commands.any(axis=1))  # lerobot fills up with zeros, which would be commands, too
        if not len(used):
            return None
        commands = np.concatenate([commands[:1], commands[: used[-1] + 1]])
        rtc, horizon = self.config.rtc_config, min(self.config.rtc_config.execution_horizon, len(commands))
        weights = RTCProcessor(rtc).get_prefix_weights(delay or 0, horizon, len(commands)).numpy()
        weights[:1] = 0
        return Executing(commands, weights, rtc.max_guidance_weight)

    def forward(self, batch: dict[str, Tensor]):
        """Not trained here."""
        raise NotImplementedError(_NOT_TRAINED)

    def get_optim_params(self) -> dict:
        """Not trained here."""
        raise NotImplementedError(_NOT_TRAINED)

    def _save_pretrained(self, save_directory, state_dict=None) -> None:
        raise NotImplementedError(_NOT_TRAINED)
