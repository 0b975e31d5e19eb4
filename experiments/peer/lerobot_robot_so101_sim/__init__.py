"""The world `so101` as a robot of lerobot's, which knows when its task is done.

lerobot imports what is installed under a name that begins with lerobot_robot_; `rollout.py` puts the metadata of such a
distribution beside it. An episode lasts a fixed number of commands, whatever the clock says; after the last one the
robot stops the program, as Ctrl-C does.
"""

import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from lerobot.robots import Robot, RobotConfig

from metalora_jax.envs.so101.simulator import CAMERAS, JOINTS, SO101


@RobotConfig.register_subclass("so101_sim")
@dataclass
class So101SimConfig(RobotConfig):
    """One episode of `steps` commands from each of `starts`; `log` is the file that they are written to."""

    world_task: str = "lift-red"
    starts: list[int] = field(default_factory=lambda: [0])
    steps: int = 60
    world_fps: int = 10
    picture: int = 64  # [px]
    log: str = ""


class So101Sim(Robot):
    """LeRobot's names and units are those of the world."""

    config_class = So101SimConfig
    name = "so101_sim"

    def __init__(self, config: So101SimConfig):
        super().__init__(config)
        self.config, self._world = config, None
        self._commands, self._success, self._done, self._clock = [], [], [], []

    @property
    def observation_features(self) -> dict:
        return self.action_features | {camera: (self.config.picture, self.config.picture, 3) for camera in CAMERAS}

    @property
    def action_features(self) -> dict:
        return {f"{joint}.pos": float for joint in JOINTS}

    @property
    def is_connected(self) -> bool:
        return self._world is not None

    def connect(self, calibrate: bool = True) -> None:
        self._world = SO101(self.config.world_task, CAMERAS, self.config.picture, self.config.world_fps)
        self._world.reset(self.config.starts[0])

    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict:
        frame = self._world.observe()
        joints = {f"{joint}.pos": float(value) for joint, value in zip(JOINTS, frame.state, strict=True)}
        return joints | dict(zip(CAMERAS, frame.images, strict=True))

    def send_action(self, action: dict) -> dict:
        if len(self._done) == len(self.config.starts):  # told to stop, and on its way
            return action
        self._clock.append((time.perf_counter(), time.process_time()))
        command = [action[f"{joint}.pos"] for joint in JOINTS]
        self._success.append(self._world.step(command).success)
        self._commands.append(command)
        if len(self._commands) == self.config.steps:
            self._next()
        return action

    def _next(self) -> None:
        start = self.config.starts[len(self._done)]
        self._done.append({"start": start, "success": self._success, "commands": self._commands})
        self._commands, self._success = [], []
        if len(self._done) < len(self.config.starts):
            self._world.reset(self.config.starts[len(self._done)])
        else:
            signal.raise_signal(signal.SIGINT)

    def disconnect(self) -> None:
        self._world.close()
        self._world = None
        Path(self.config.log).write_text(json.dumps({"episodes": self._done, "clock": self._clock}))
