"""RLDS datasets: the metadata are checked without TensorFlow, the records with it."""

import builtins
import json

import numpy as np
import pytest

from metalora_jax.data import sources
from metalora_jax.data.demos import DemoError
from metalora_jax.data.sources import rlds
from metalora_jax.data.sources.names import FeatureNames
from tests.demo_formats import CAMERAS, TASKS, make_libero_demos, write_rlds

CLASS = "tensorflow_datasets.core.features."
SHARDS = ["tiny-train.tfrecord-00000-of-00002", "tiny-train.tfrecord-00001-of-00002"]
NAMES = FeatureNames(("image", "wrist_image"), "state", "action")


def structure(**fields):
    return {"pythonClassName": f"{CLASS}features_dict.FeaturesDict", "featuresDict": {"features": fields}}


@pytest.fixture
def root(tmp_path):
    """The metadata of a dataset of five episodes in two empty files."""
    path = tmp_path / "tiny" / "1.0.0"
    path.mkdir(parents=True)
    split = {"name": "train", "shardLengths": ["3", "2"], "numBytes": "0"}
    (path / "dataset_info.json").write_text(json.dumps({"name": "tiny", "fileFormat": "tfrecord", "splits": [split]}))
    tensor = {"pythonClassName": f"{CLASS}tensor_feature.Tensor"}
    observation = structure(image=tensor, wrist_image=tensor, state=tensor, joint_state=tensor)
    step = structure(observation=observation, action=tensor, language_instruction=tensor)
    steps = {"pythonClassName": f"{CLASS}dataset_feature.Dataset", "sequence": {"feature": step}}
    (path / "features.json").write_text(json.dumps(structure(steps=steps)))
    for name in SHARDS:
        (path / name).write_bytes(b"")
    return path


def test_versions(root):
    assert sources.open(root, CAMERAS).path == sources.open(root.parent, CAMERAS).path == root
    with pytest.raises(DemoError, match=r"not a known demonstration format; .*did you mean \S*tiny"):
        sources.open(root.parents[1], CAMERAS)
    (root.parent / "2.0.0").mkdir()
    (root.parent / "2.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(DemoError, match=r"holds 1\.0\.0, 2\.0\.0; name one of these"):
        sources.open(root.parent, CAMERAS)


def test_a_missing_file(root):
    (root / SHARDS[1]).unlink()
    with pytest.raises(DemoError, match=r"tiny-train\.tfrecord-00001-of-00002: no such file, one of 1 missing"):
        sources.open(root, CAMERAS)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_truncated_metadata(root, file):
    text = (root / file).read_text()
    (root / file).write_text(text[: len(text) // 2])
    with pytest.raises(DemoError, match=f"{file}: damaged or truncated"):
        sources.open(root, CAMERAS)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"wrist_image"', '"hand_image"', "eye_in_hand .* is not there; .*features are: image, hand_image"),
        ('"language_instruction"', '"text"', "key missing .*language_instruction"),
        ('"steps"', '"frames"', "key missing .*steps"),
        (f"{CLASS}tensor_feature.Tensor", "os.system", r"a feature of class os\.system, expected one of TFDS's own"),
    ],
)
def test_other_features(root, old, new, complaint):
    text = (root / "features.json").read_text()
    (root / "features.json").write_text(text.replace(old, new))
    with pytest.raises(DemoError, match=complaint):
        sources.open(root, CAMERAS)


def test_another_split(root):
    text = (root / "dataset_info.json").read_text()
    (root / "dataset_info.json").write_text(text.replace('"train"', '"validation"'))
    with pytest.raises(DemoError, match="no split 'train', found validation"):
        sources.open(root, CAMERAS)


def test_without_tensorflow_it_says_what_to_install(root, monkeypatch):
    rlds._tensorflow.cache_clear()
    plain = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("tensorflow"):
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"need TensorFlow and TFDS; pip install 'metalora_jax\[rlds\]'"):
        sources.open(root, CAMERAS).tasks()


def steps_of(demo, **changes):
    """As TFDS gives them, but for pictures that are not encoded."""
    observation = {"image": demo.images[:, 0], "wrist_image": demo.images[:, 1], "state": demo.state}
    told = np.array([demo.instruction.encode()] * len(demo.actions), object)
    return {"observation": observation, "action": demo.actions, "language_instruction": told, **changes}


def test_an_episode_becomes_a_demonstration():
    (demo,) = make_libero_demos(count=1)
    found = rlds.to_demo("here", steps_of(demo), NAMES, CAMERAS, np.asarray)
    assert found.instruction == demo.instruction
    for got, wanted in zip(found[1:4], demo[1:4], strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"action": np.full((5, 7), np.nan, np.float32)}, "here: actions at step 0 is not finite"),
        ({"action": np.zeros((4, 7), np.float32)}, "here: 4 actions, 5 in state"),
        (
            {"language_instruction": np.array([b"a", b"b", b"a", b"a", b"a"], object)},
            "here: 2 instructions, expected one",
        ),
        ({"language_instruction": np.array([b""] * 5, object)}, "here: the instruction is ''"),
        ({"language_instruction": np.array([b"a"] * 4, object)}, "here: 5 actions, 4 in language_instruction"),
        ({"is_first": np.arange(5) == 2}, "here: is_first is set on step 2 of 5, inside the episode"),
        ({"is_last": np.arange(5) > 2}, "here: is_last is set on step 3 of 5, inside the episode"),
        ({"language_instruction": np.array([b"\xff"] * 5, object)}, "here: language_instruction is not UTF-8 text"),
    ],
)
def test_damaged_episodes(changes, complaint):
    (demo,) = make_libero_demos(count=1)
    with pytest.raises(DemoError, match=complaint):
        rlds.to_demo("here", steps_of(demo, **changes), NAMES, CAMERAS, np.asarray)


@pytest.mark.rlds
@pytest.mark.filterwarnings("ignore")
class TestRecords:
    @pytest.fixture
    def made(self, tmp_path):
        return write_rlds(tmp_path, make_libero_demos(TASKS[0], 3) + make_libero_demos(TASKS[1]))

    @pytest.mark.parametrize("kept", [0, 0.4, 0.999])
    def test_truncated(self, made, kept):
        (shard,) = made.glob("*.tfrecord-*")
        content = shard.read_bytes()
        shard.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(
            DemoError, match=r"1\.0\.0: (damaged or truncated|0 episodes, but dataset_info\.json declares 5)"
        ):
            sources.open(made, CAMERAS).tasks()

    def test_altered(self, made):
        (shard,) = made.glob("*.tfrecord-*")
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        with pytest.raises(DemoError, match="damaged or truncated"):
            sources.open(made, CAMERAS).tasks()

    def test_fewer_episodes_than_declared(self, made):
        text = (made / "dataset_info.json").read_text()
        (made / "dataset_info.json").write_text(text.replace('"5"', '"6"'))
        with pytest.raises(DemoError, match=r"5 episodes, but dataset_info\.json declares 6|damaged"):
            sources.open(made, CAMERAS).tasks()

    def test_jpeg_pictures_as_tensorflow_decodes_them(self, tmp_path):
        import tensorflow as tf

        (demo,) = make_libero_demos(count=1)
        source = sources.open(write_rlds(tmp_path / "jpeg", [demo], "jpeg"), CAMERAS)
        (found,) = source.demos(TASKS[0])
        expected = tf.io.decode_jpeg(tf.io.encode_jpeg(demo.images[0, 0], quality=95)).numpy()
        assert np.abs(found.images[0, 0].astype(int) - expected).mean() < 20
        assert found.images.shape == demo.images.shape
