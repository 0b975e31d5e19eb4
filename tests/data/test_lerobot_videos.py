"""Videos of LeRobot datasets that are missing, cut short, or other than declared."""

import numpy as np
import pytest

from metalora_jax.data import lerobot_v3, sources
from metalora_jax.data.demos import DemoError
from tests.demo_formats import CAMERAS, FPS, TASKS, make_libero_demos, write_lerobot_v2, write_video

pytestmark = pytest.mark.parquet


@pytest.fixture
def demos():
    return make_libero_demos(TASKS[0], 3) + make_libero_demos(TASKS[1])


def read_all(root):
    source = sources.open(root, CAMERAS)
    return [demo for task in source.names() for demo in source.demos(task)]


@pytest.fixture
def root(tmp_path, demos):
    write_lerobot_v2(tmp_path / "videos", demos, video=True)
    return tmp_path / "videos"


@pytest.fixture
def video(root):
    return root / "videos" / "chunk-000" / "wrist_image" / "episode_000001.mp4"


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_truncated(root, video, kept):
    content = video.read_bytes()
    video.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DemoError, match=r"wrist_image/episode_000001\.mp4: "):
        read_all(root)


def test_missing(root, video):
    video.unlink()
    with pytest.raises(DemoError, match=r"episode_000001\.mp4: no such file"):
        read_all(root)


@pytest.mark.parametrize(
    ("steps", "size", "fps", "complaint"),
    [
        (5, 16, FPS, "episode 1: the video holds 5 frames, but length is 6"),
        (7, 16, FPS, "episode 1: the video holds 7 frames, but length is 6"),
        (6, 32, FPS, r"32x32 pixels, but info\.json declares shape \(16, 16, 3\)"),
        (
            6,
            16,
            2 * FPS,
            r"frame 2 is at 0\.100 s, expected 0\.200 s at fps 10 \(the video runs at 20\)",
        ),
    ],
)
def test_other_than_declared(root, video, steps, size, fps, complaint):
    write_video(video, np.zeros((steps, size, size, 3), np.uint8), fps)
    with pytest.raises(DemoError, match=complaint) as error:
        read_all(root)
    assert "wrist_image/episode_000001.mp4" in str(error.value)


def test_a_shared_video_that_ends_early(tmp_path, demos):
    root = tmp_path / "v3"
    lerobot_v3.write(root, demos, CAMERAS, FPS, pictures="h264-lossless")
    video = root / "videos" / "observation.images.image2" / "chunk-000" / "file-000.mp4"
    write_video(video, np.zeros((9, 16, 16, 3), np.uint8))
    with pytest.raises(
        DemoError, match=r"file-000\.mp4: episode 0: the video holds 9 frames, but its episodes \(0 to 4\) have 29"
    ):
        read_all(root)
