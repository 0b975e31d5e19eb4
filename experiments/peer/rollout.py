"""lerobot-rollout with a robot that is no package."""

import os
import subprocess
from pathlib import Path


def rollout(python: str | Path, scratch: Path, robot: Path, *flags: str) -> None:
    """Runs lerobot's program.

    Args:
      python: interpreter of an environment with lerobot 0.6.1 and `lerobot_policy_metalora`.
      scratch: an empty directory; the robot is plugged in there.
      robot: the directory of a module whose name begins with lerobot_robot_.
      flags: what the program is given.
    """
    (scratch / robot.name).symlink_to(robot)
    metadata = scratch / f"{robot.name}-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {robot.name}\nVersion: 0\n")
    command = [Path(python).with_name("lerobot-rollout"), *flags]
    command += ["--play_sounds=false", "--return_to_initial_position=false"]
    environment = {"PYTHONPATH": str(scratch), "HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(scratch / "home")}
    subprocess.run(command, check=True, env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
