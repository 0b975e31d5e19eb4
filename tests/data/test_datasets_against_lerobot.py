"""What we write, read by lerobot, which runs in an environment of its own."""

import numpy as np
import pytest

from experiments.peer.client import VERSIONS, Peer
from metalora_jax.data import lerobot_v3
from tests.demo_formats import CAMERAS, FPS, TASKS, make_libero_demos

pytestmark = [pytest.mark.lerobot, pytest.mark.parquet]


@pytest.mark.parametrize("pictures", ["png", "h264-lossless"])
@pytest.mark.parametrize("version", VERSIONS)
def test_lerobot_reads_the_same(tmp_path, lerobot_python, version, pictures):
    demos = make_libero_demos(TASKS[0], 3) + make_libero_demos(TASKS[1])
    lerobot_v3.write(tmp_path / "made", demos, CAMERAS, FPS, "panda", pictures)
    with Peer(lerobot_python(version)) as peer:
        answer = peer.read_dataset(root=str(tmp_path / "made"), file=str(tmp_path / "frames.npz"))
    lengths = [len(demo.actions) for demo in demos]
    assert (answer["episodes"], answer["fps"], answer["robot"]) == (5, FPS, "panda")
    assert answer["tasks"] == [
        demo.instruction for demo, steps in zip(demos, lengths, strict=True) for _ in range(steps)
    ]
    frames = np.load(tmp_path / "frames.npz")
    np.testing.assert_array_equal(frames["episode_index"], np.repeat(np.arange(5), lengths))
    np.testing.assert_array_equal(frames["action"], np.concatenate([demo.actions for demo in demos]))
    np.testing.assert_array_equal(frames["observation.state"], np.concatenate([demo.state for demo in demos]))
    images = np.concatenate([demo.images for demo in demos])
    for c, key in enumerate(("observation.images.image", "observation.images.image2")):
        theirs = np.rint(np.moveaxis(frames[key], 1, -1) * 255)  # (frames, 3, H, W) in [0, 1]
        np.testing.assert_array_equal(theirs, images[:, c])
