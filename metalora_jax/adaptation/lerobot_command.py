"""The command that runs an exported policy on the robot, inside lerobot."""

import shlex

from metalora_jax.data.sources.embodiment import Embodiment

_COMMON_FPS = 30  # pictures a second, that nearly every camera can show


def lerobot_command(robot: Embodiment, path: str, task: str = "TASK", before: str = "") -> str:
    """What to type to run a policy with lerobot; what data do not say of the robot stands in capitals.

    lerobot takes no camera without width, height and rate. Data know one rate, which lerobot records pictures and
    commands at; a camera may have no such rate of its own.

    Args:
      robot: what the policy was trained on.
      path: of the policy.
      task: what it was adapted to, in words.
      before: commands that come first.
    """
    height, width = robot.picture or ("HEIGHT", "WIDTH")
    rate = f"{robot.fps:g}" if robot.fps else "FPS"
    shown = f"width: {width}, height: {height}, fps: {rate}"
    seen = [f"{name}: {{type: opencv, index_or_path: {i}, {shown}}}" for i, name in enumerate(robot.cameras or ())]
    given = {"policy.path": path, "robot.type": robot.robot_type or "ROBOT", "robot.port": "PORT"}
    given["robot.cameras"] = f"'{{{', '.join(seen) or 'CAMERAS'}}}'"
    if robot.fps:
        given["fps"] = rate
    command = " ".join(f"--{name}={value}" for name, value in (given | {"task": shlex.quote(task)}).items())
    lines = [f"run:      {before}lerobot-rollout {command}", *_missing(robot)]
    return "\n          ".join(lines)


def _missing(robot: Embodiment) -> list[str]:
    """What to put in the command where the data do not say it, a sentence each."""
    said = []
    if not robot.cameras:
        mapped = '--rename_map=\'{"observation.images.YOURS": "observation.images.camera1"}\''
        said.append(f"the robot's names of its cameras are not recorded: add {mapped}, one for each")
    elif not robot.picture:
        said.append("the size of the cameras' pictures is not recorded: put it for WIDTH and HEIGHT, or give --picture")
    if not robot.fps:
        said.append("the rate of the data is not recorded: put it for FPS, and add --fps, at which commands are sent")
    elif robot.cameras and robot.fps != _COMMON_FPS:
        said.append(
            f"a camera that cannot show {robot.fps:g} pictures a second takes another fps of its own; --fps, the rate "
            "of the commands, stays"
        )
    return said
