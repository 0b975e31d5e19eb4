"""Pretraining: batches are pure in (seed, step), pictures of any size reach the policy as everywhere else."""

import functools
import hashlib
from pathlib import Path
from runpy import run_path

import jax
import numpy as np
import pytest
from flax import nnx

from metalora_jax.data import libero_hdf5
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.frames import gather
from metalora_jax.policies import registry
from metalora_jax.training import pretrain
from metalora_jax.training.recipe import Pretraining
from tests.tiny_base import INSTRUCTIONS, make_base, make_demos, make_frames

CONFIG = Path(__file__).parents[2] / "configs" / "nano_smolvla.py"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two parts, the second without pushing."""
    root = tmp_path_factory.mktemp("demos")
    for task in INSTRUCTIONS:
        libero_hdf5.write(root / f"{task}_demo.hdf5", make_demos(task), ("topview",), task, {})
    parts = {"clean": tuple(INSTRUCTIONS), "noisy": ("reach",)}
    config = run_path(str(CONFIG))["get_config"]().to_dict()
    return config | {"data": {name: part(root, tasks=tasks) for name, tasks in parts.items()}}


def read(recipe):
    return pretrain.read(Pretraining.from_config(recipe))


def part(root, **fields):
    return dict(directory=str(root), demos=4, cameras=("topview",)) | fields


def test_batches_are_pure_in_seed_and_step():
    frames = make_frames()
    labelled = pretrain.label(frames)
    one, again, other = (pretrain.draw_batch(frames, labelled, 0, step, 6) for step in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one.target.actions, other.target.actions)


def test_larger_pictures_are_brought_to_the_policy_s_size_as_in_a_rollout():
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 3), dtype=np.uint8)
    family = registry.family("smolvla")
    for size in (32, 16):
        prepare = functools.partial(family.prepare_float_images, size=size)
        seen = pretrain.augment(jax.random.key(0), images, shift=0, brightness=0.0, prepare=prepare)
        np.testing.assert_allclose(seen, family.prepare_images(images, size), atol=1e-6)


def test_the_recipe_says_which_type_of_policy_is_trained(recipe):
    made = Pretraining.from_config(recipe | {"model": {"type": "smolvla", "layers": 2}})
    model = nnx.eval_shape(lambda: pretrain.create(made))
    assert (model.type, model.config.layers) == ("smolvla", 2)
    assert made.model["type"] == "smolvla"  # claimed and recorded as it is
    for named, told in (({}, "the config has no model.type; add"), ({"type": "bert"}, "no policy is of type 'bert'")):
        with pytest.raises(ValueError, match=told):
            pretrain.create(made._replace(model=named))


def test_the_tasks_of_the_first_part_are_learned_from_all_parts(recipe):
    demos = read(recipe)
    assert {task: len(recorded) for task, recorded in demos.items()} == {"reach": 8, "push": 4}
    assert not any(demo.paraphrases for recorded in demos.values() for demo in recorded)


def test_parts_with_different_cameras_are_refused(recipe):
    noisy = recipe["data"]["noisy"] | {"cameras": ("agentview",)}
    with pytest.raises(ValueError, match=r"data\.noisy\.cameras = \('agentview',\) must be data\.clean\.cameras"):
        read(recipe | {"data": recipe["data"] | {"noisy": noisy}})


def test_a_mirrored_task_of_all_parts_is_learned_in_its_own_words(recipe):
    words = {"reach": ("go left to the goal",), "push": ()}
    mirrored = dict(world="metaworld", names=("mirror",), tasks=("reach",))
    demos = read(recipe | {"paraphrases": words, "symmetries": mirrored})
    assert {task: len(recorded) for task, recorded in demos.items()} == {"reach": 8, "push": 4, "reach@mirror": 8}
    assert {demo.paraphrases for demo in demos["reach@mirror"]} == {("go right to the goal",)}
    for demo, twin in zip(demos["reach"], demos["reach@mirror"], strict=True):
        np.testing.assert_array_equal(twin.images, demo.images[..., ::-1, :])


def test_batches_show_frames_in_all_their_variants_with_the_labels_of_the_frame():
    base = make_base()
    demos = {"reach": [make_demos("reach")[0]._replace(paraphrases=("go to the goal",))]}
    augment = ImageAugmentation(variants=3)
    frames = gather(demos, base.preprocessor, augment)
    labelled = pretrain.label(frames)
    batch = pretrain.draw_batch(frames, labelled, 0, 1, 64)
    told = [base.encode_text(text)[0] for text in ("reach the goal", "go to the goal")]
    seen = set()
    for i in range(64):
        [row] = [n for n, state in enumerate(frames.state) if np.array_equal(state, batch.inputs.state[i])]
        own = [augment.apply(demos["reach"][0].images[row], row, variant) for variant in range(3)]
        [variant] = [v for v in range(3) if np.array_equal(own[v], batch.inputs.images[i])]
        np.testing.assert_array_equal(batch.inputs.tokens[i], told[variant > 0])
        np.testing.assert_array_equal(batch.target.actions[i], labelled.labels[0].actions[row])
        seen.add(variant)
    assert seen == {0, 1, 2}


def test_without_variants_batches_are_those_that_the_shipped_base_was_trained_on():
    """The digest is of the code before there were variants; one variant is none."""
    base = make_base()
    demos = {task: make_demos(task) for task in INSTRUCTIONS}
    for augment in (None, ImageAugmentation(variants=1)):
        frames = gather(demos, base.preprocessor, augment)
        batch = pretrain.draw_batch(frames, pretrain.label(frames), 5, 7, 16)
        parts = (batch.inputs.images, batch.inputs.tokens, batch.target.is_pad)  # what no rounding can change
        assert hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:16] == "b50ba2a27aae9da4"


def test_a_config_without_a_model_is_another_command_s():
    with pytest.raises(ValueError, match="the config has no section `model`"):
        Pretraining.from_config({"data": {"directory": "runs/demos"}})
