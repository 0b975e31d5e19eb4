"""A small LeRobot dataset of two tasks, in both versions, and what is said about it when it is changed."""

from pathlib import Path

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.data.demos import DemoError
from metalora_jax.types import Demo
from tests.demo_formats import CAMERAS, FPS, TASKS, make_libero_demos, write_lerobot_v2

KEY = "observation.images.image2"
EPISODES, DATA, LABELS = (
    "meta/episodes/chunk-000/file-000.parquet",
    "data/chunk-000/file-000.parquet",
    "meta/tasks.parquet",
)
VIDEO = f"videos/{KEY}/chunk-000/file-000.mp4"
COUNT = 5


def mixed() -> list[Demo]:
    """Five demonstrations, whose tasks take turns."""
    first, second = make_libero_demos(TASKS[0], 3), make_libero_demos(TASKS[1])
    return [first[0], second[0], first[1], second[1], first[2]]


def write_both(root: Path) -> Path:
    """Version 3 with many episodes in one video, and version 2."""
    lerobot_v3.write(root / "v3", mixed(), CAMERAS, FPS, pictures="h264-lossless")
    write_lerobot_v2(root / "v2", mixed(), video=True)
    return root


def read_all(root: Path, cameras=CAMERAS, **options) -> list[Demo | DemoError]:
    """In the order of the dataset."""
    return [demo for _, demo in sources.open(root, cameras, **options).survey()]


def refusals(root: Path, cameras=CAMERAS) -> dict[int | None, str]:
    """What is said when everything is read, by episode; or about the whole dataset, by None."""
    try:
        return {fault.number: fault.message for fault in sources.open(root, cameras).faults()}
    except DemoError as error:
        return {None: str(error)}
