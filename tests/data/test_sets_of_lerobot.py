"""Datasets as lerobot itself writes and edits them: read to the number, and sound in the doctor's eyes."""

import numpy as np
import pytest

from experiments.peer.client import VERSIONS, Peer
from experiments.peer.recording import HOW, NEW
from metalora_jax.data import sources
from metalora_jax.evaluation.doctor.run import Request, examine
from tests import own_robot
from tests.evaluation import faulty_sets, written_sets

pytestmark = [pytest.mark.lerobot, pytest.mark.parquet]
KINDS = {
    "joints": faulty_sets.Kind(human=False, fps=10),
    "Cartesian": faulty_sets.Kind(human=False, cartesian=True, unit="radians", fps=10),
}
CASES = [("joints", how, version) for version in VERSIONS for how in HOW if version == "0.6.1" or how not in NEW]
CASES += [("Cartesian", "png", version) for version in VERSIONS]


@pytest.fixture(scope="module")
def peers(lerobot_python):
    running = {}

    def of(version):
        if version not in running:
            running[version] = Peer(lerobot_python(version))
        return running[version]

    yield of
    for peer in running.values():
        peer.__exit__()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    def of(name):
        kind, file = KINDS[name], tmp_path_factory.mktemp("source") / "source.npz"
        demos = faulty_sets.make_set(kind, 3, 8)
        own_robot.write_source(file, demos, faulty_sets.names(kind), faulty_sets.CAMERAS, kind.fps)
        return file, demos

    return of


@pytest.mark.parametrize(("name", "how", "version"), CASES)
def test_sound_sets_are_sound(peers, source, tmp_path, name, how, version):
    file, demos = source(name)
    root = tmp_path / "set"
    left = peers(version).record(root=str(root), source=str(file), how=how)["left"]
    keys = {"instruction": "subtask", "paraphrases": "task_aug"} if how == "language" else {}
    found = [demo for _, demo in sources.open(root, faulty_sets.CAMERAS, keys).survey()]
    for demo, i in zip(found, left, strict=True):
        np.testing.assert_array_equal(demo.actions, demos[i].actions)
        np.testing.assert_array_equal(demo.state, demos[i].state)
        away = np.abs(demo.images.astype(int) - demos[i].images)
        assert away.mean() < (1e-9 if how == "png" else 12)
        # Encoded pictures are those of their own frame, not of a neighbour's.
        assert away.mean() <= np.abs(np.roll(demo.images, 5, 0).astype(int) - demos[i].images).mean()
        assert demo.instruction == demos[i].instruction
        if how == "language":
            assert demo.steps == ((0, "reach for it"), (10, "bring it"))
            assert demo.paraphrases == (f"please {demo.instruction}",)
    outcomes = [result.outcome for result in examine(Request("none", (str(root),)))]
    said = [str(finding) for finding in written_sets.above_info(outcomes)]
    if how == "relative":
        assert len(said) == 1
        assert "statistics of actions are those of actions relative to the state" in said[0]
    else:
        assert said == []
