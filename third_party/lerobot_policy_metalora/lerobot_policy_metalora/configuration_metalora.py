"""config.json of a policy directory; lerobot finds the modules of policy and processors by the name of this one."""

from dataclasses import dataclass, field

from lerobot.configs import PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig


@PreTrainedConfig.register_subclass("metalora")
@dataclass
class MetaloraConfig(PreTrainedConfig):
    """What `metalora_jax.adaptation.lerobot_policy` writes.

    Attributes:
      base: a directory, relative to that of the policy, or a name on the hub.
      adapter: a directory, relative to that of the policy; "" runs the base alone.
      cameras: names of the robot's cameras, in the order of the base.
      chunk_size: steps that the base predicts.
      n_action_steps: steps of each chunk that are executed; 0 is all.
      seed: of the sampler's noise.
      rtc_config: of real-time chunking; set by `--inference.type=rtc`.
    """

    base: str = "base"
    adapter: str = "adapter"
    cameras: list[str] = field(default_factory=list)
    chunk_size: int = 0
    n_action_steps: int = 0
    seed: int = 0
    rtc_config: RTCConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps is {self.n_action_steps}, but the policy's chunks have {self.chunk_size} steps; "
                f"set it from 1 to {self.chunk_size}, or to 0 for all"
            )

    def validate_features(self) -> None:
        """They are held against the base when it is loaded."""

    def get_optimizer_preset(self):
        """Not trained here."""
        raise NotImplementedError("a metalora policy is not trained by lerobot; adapt it with metalora adapt")

    def get_scheduler_preset(self) -> None:
        """Not trained here."""

    @property
    def observation_delta_indices(self) -> list[int]:
        """The present alone."""
        return [0]

    @property
    def action_delta_indices(self) -> list[int]:
        """A chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """None."""
