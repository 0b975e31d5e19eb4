"""A robot for lerobot's programs that shows made-up pictures and writes down what it is told to do.

lerobot imports what is installed under a name that begins with lerobot_robot_; the test that uses this one puts the
metadata of such a distribution beside it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

try:
    from lerobot.robots import Robot, RobotConfig
except ImportError:  # the test reads `seen` where there is no lerobot
    Robot = RobotConfig = None

JOINTS, SIZE = 4, (48, 64)


def seen(step: int, cameras: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the robot shows at its n-th look: a picture (H, W, 3) of each camera, and its joints (JOINTS,)."""
    rng = np.random.default_rng(step)
    pictures = {camera: rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for camera in sorted(cameras)}
    return pictures, rng.uniform(-0.2, 0.8, JOINTS).astype(np.float32)


if Robot is not None:

    @RobotConfig.register_subclass("fake")
    @dataclass
    class FakeRobotConfig(RobotConfig):
        """`log` is the file that what happens is written to."""

        log: str = ""
        cameras_shown: list[str] = field(default_factory=list)

    class FakeRobot(Robot):
        """Every look is the next of `seen`."""

        config_class = FakeRobotConfig
        name = "fake"

        def __init__(self, config):
            super().__init__(config)
            self.config, self._looks, self._told, self._on = config, 0, [], False

        @property
        def observation_features(self) -> dict:
            joints = {f"joint{i}.pos": float for i in range(JOINTS)}
            return joints | {camera: (*SIZE, 3) for camera in self.config.cameras_shown}

        @property
        def action_features(self) -> dict:
            return {f"joint{i}.pos": float for i in range(JOINTS)}

        @property
        def is_connected(self) -> bool:
            return self._on

        def connect(self, calibrate: bool = True) -> None:
            self._on = True

        @property
        def is_calibrated(self) -> bool:
            return True

        def calibrate(self) -> None:
            pass

        def configure(self) -> None:
            pass

        def get_observation(self) -> dict:
            pictures, joints = seen(self._looks, self.config.cameras_shown)
            self._looks += 1
            return {f"joint{i}.pos": float(value) for i, value in enumerate(joints)} | pictures

        def send_action(self, action: dict) -> dict:
            self._told.append([self._looks - 1, [action[f"joint{i}.pos"] for i in range(JOINTS)]])
            return action

        def disconnect(self) -> None:
            self._on = False
            Path(self.config.log).write_text(json.dumps({"looks": self._looks, "told": self._told}))
