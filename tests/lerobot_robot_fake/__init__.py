"""Robots for lerobot's programs that show made-up pictures and write down what they are told to do.

lerobot imports what is installed under a name that begins with lerobot_robot_; the test that uses this one puts the
metadata of such a distribution beside it.
"""

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

try:
    from lerobot.cameras import CameraConfig
    from lerobot.robots import Robot, RobotConfig
except ImportError:  # tests read `seen` where there is no lerobot
    Robot = RobotConfig = None

JOINTS, SIZE = 4, (48, 64)
ARM = "METALORA_FAKE_ARM"  # environment variable: JSON with "joints" (names), "steps" and "log" of a fake_arm
SEED = 7  # of torch's noise


def seen(step: int, cameras: list[str], joints: int = JOINTS) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the robot shows at its n-th look: a picture (H, W, 3) of each camera, and its joints (joints,)."""
    rng = np.random.default_rng(step)
    pictures = {camera: rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for camera in sorted(cameras)}
    return pictures, rng.uniform(-0.2, 0.8, joints).astype(np.float32)


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

    @RobotConfig.register_subclass("fake_arm")
    @dataclass
    class FakeArmConfig(RobotConfig):
        """What the command that `metalora export` prints says of a robot; ARM has the rest."""

        port: str = ""
        cameras: dict[str, CameraConfig] = field(default_factory=dict)

    class FakeArm(FakeRobot):
        """Has any joints, and stops the program after so many commands, as Ctrl-C does."""

        config_class = FakeArmConfig
        name = "fake_arm"

        def __init__(self, config):
            self._arm = json.loads(os.environ[ARM])
            super().__init__(config)

        @property
        def observation_features(self) -> dict:
            return self.action_features | {camera: (*SIZE, 3) for camera in self.config.cameras}

        @property
        def action_features(self) -> dict:
            return dict.fromkeys(self._arm["joints"], float)

        def get_observation(self) -> dict:
            if not self._looks:
                import torch

                torch.manual_seed(SEED)  # policies in torch draw their noise from its state
            pictures, joints = seen(self._looks, list(self.config.cameras), len(self._arm["joints"]))
            self._looks += 1
            return dict(zip(self._arm["joints"], joints.tolist(), strict=True)) | pictures

        def send_action(self, action: dict) -> dict:
            if len(self._told) == self._arm["steps"]:  # told to stop, and on its way
                return action
            self._told.append([self._looks - 1, [action[joint] for joint in self._arm["joints"]]])
            if len(self._told) == self._arm["steps"]:
                signal.raise_signal(signal.SIGINT)
            return action

        def disconnect(self) -> None:
            self._on = False
            Path(self._arm["log"]).write_text(json.dumps({"looks": self._looks, "told": self._told}))
