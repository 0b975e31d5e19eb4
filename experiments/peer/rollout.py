"""lerobot-rollout with a robot that is no package."""

import os
import subprocess
from pathlib import Path


def plugged(python: str | Path, scratch: Path, robot: Path) -> dict[str, str]:
    """The environment variables with which lerobot's programs run, and find the robot.

    Args:
      python: interpreter of an environment with lerobot 0.6.1 and `lerobot_policy_metalora`.
      scratch: an empty directory; the robot is plugged in there.
      robot: the directory of a module whose name begins with lerobot_robot_.
    """
    (scratch / robot.name).symlink_to(robot)
    metadata = scratch / f"{robot.name}-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {robot.name}\nVersion: 0\n")
    path = os.pathsep.join([str(Path(python).absolute().parent), os.environ.get("PATH", "")])
    added = {"PATH": path, "PYTHONPATH": str(scratch), "HF_HUB_OFFLINE": "1", "HF_LEROBOT_HOME": str(scratch / "home")}
    return {**os.environ, **added}


def rollout(python: str | Path, scratch: Path, robot: Path, *flags: str) -> None:
    """Runs lerobot's program; arguments as of `plugged`, and the flags that it is given."""
    command = ["lerobot-rollout", *flags, "--play_sounds=false", "--return_to_initial_position=false"]
    environment = plugged(python, scratch, robot)
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)
