"""Grounding: a policy that is taught where things are, and which is meant, says so in scenes that it has not seen."""

from functools import partial
from pathlib import Path
from runpy import run_path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from metalora_jax.adaptation import base as bases
from metalora_jax.policies import registry
from metalora_jax.training import grounding, loop, pretrain
from metalora_jax.training.grounding import Scenes
from metalora_jax.training.recipe import Pretraining
from tests.tiny_base import make_base

CONFIGS = Path(__file__).parents[2] / "configs"
SIZES = dict(image_size=16, patch_size=4, vision_hidden=16, vision_layers=1, vision_mlp=32, layers=2, chunk_size=2)
SAID, THINGS = ("find the red square", "blue square on red square"), ("red square", "blue square")


def squares(seed, count):
    """A red and a blue square on grey, in one camera; the blue one is out of view in every other scene."""
    rng = np.random.default_rng(seed)
    images, points = np.full((count, 1, 16, 16, 3), 96, np.uint8), np.full((count, 1, 2, 2), np.nan, np.float32)
    for i in range(count):
        rows = rng.permutation(13)[:2]
        for thing, (row, column) in enumerate(zip(rows, rng.integers(13, size=2), strict=True)):
            if thing == 0 or i % 2:
                images[i, 0, row : row + 4, column : column + 4] = np.eye(3)[2 * thing] * 255
                points[i, 0, thing] = (np.array([column, row]) + 2) / 8 - 1
    return Scenes(images, np.zeros((count, 4), np.float32), points)


def test_a_thing_is_where_its_highest_score_reads_it():
    features = jnp.eye(3)[None, None]  # (1, 1, 3 tokens, 3)
    kernel = np.zeros((3, 2, 3), np.float32)  # two things: score and place
    kernel[1, 0], kernel[2, 1] = (50, 0.25, -0.5), (50, 1, 0)
    found = grounding.places(kernel.reshape(3, 6), features)
    np.testing.assert_allclose(found, [[[[0.25, -0.5], [1, 0]]]], atol=1e-6)


def test_an_instruction_names_things_in_its_own_order():
    np.testing.assert_array_equal(grounding.named(SAID, THINGS), [[0, -1], [1, 0]])
    with pytest.raises(ValueError, match="'go home' names none of red square, blue square"):
        grounding.named(["go home"], THINGS)


@pytest.fixture(scope="module")
def reads():
    """Words and states as the policy of this file takes them."""
    made = make_base()
    model = registry.family("smolvla").create(SIZES | dict(vocab_size=320, max_tokens=16), nnx.Rngs(0))
    tokenizer = pretrain.train_tokenizer(SAID, 320)
    return model, bases.preprocessor(registry.family("smolvla"), model, tokenizer, made.statistics)


def test_lessons_are_pure_and_ask_for_what_is_named(reads):
    known = squares(0, 16)
    one, again, other = (grounding.lessons(known, SAID, THINGS, reads[1], 0, 8)(step) for step in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one.points, other.points, equal_nan=True)
    for tokens, points, meant in zip(one.inputs.tokens, one.points, one.named, strict=True):
        both = np.array_equal(tokens, reads[1].text(SAID[1], np.zeros((1, 4)))[0][0])
        want = points[:, [1, 0]] if both else np.stack([points[:, 0], np.full((1, 2), np.nan)], axis=1)
        np.testing.assert_array_equal(meant, want)


def test_a_policy_learns_where_things_are_and_nothing_from_what_is_out_of_view(reads):
    model, preprocessor = reads
    graph, weights = nnx.split(model)
    prepare = partial(registry.family("smolvla").prepare_float_images, size=16)
    augment = partial(pretrain.augment, shift=0, brightness=0.1, prepare=prepare)
    gradient, optimizer = grounding.gradient(graph, augment), optax.adam(5e-3)
    step = jax.jit(partial(loop.update, gradient=gradient, optimizer=optimizer))
    lesson, key = grounding.lessons(squares(0, 512), SAID, THINGS, preprocessor, 0, 32), jax.random.key(0)
    new = grounding.lessons(squares(1, 32), SAID, THINGS, preprocessor, 0, 32)(0)
    pointers = grounding.pointers(model.sizes, 96, new.points.shape, new.named.shape, 0)
    state = loop.init({"policy": nnx.to_pure_dict(weights), "pointers": pointers}, optimizer)

    def errors(lesson):
        return [float(step(state, lesson, key)[1][name]) for name in ("everything", "named")]

    before = errors(new)
    assert min(before) > 0.3  # half a picture is 1
    # Were places out of view counted, they would be errors.
    wrong = new._replace(points=np.nan_to_num(new.points, nan=9), named=np.nan_to_num(new.named, nan=9))
    assert min(errors(wrong)) > 1
    for i in range(150):
        state, _ = step(state, lesson(i), jax.random.fold_in(key, i))
    after = errors(new)
    assert after[0] < 0.5 * before[0]
    assert after[1] < 0.8 * before[1]


def test_beside_acting_both_gradients_add_up_where_both_learn():
    def acting(params, batch, key):
        return {"w": batch * params["w"]}, {"loss": 5.0}

    def seeing(params, lesson, key):
        return {"policy": {"w": lesson + params["policy"]["w"]}, "pointers": params["pointers"]}, {"loss": 7.0}

    params = {"policy": {"w": jnp.array(2.0)}, "pointers": jnp.array(4.0)}
    both = grounding.beside(acting, seeing)
    grads, metrics = both(params, grounding.Both(3.0, 10.0), jax.random.key(0))
    assert (float(grads["policy"]["w"]), float(grads["pointers"])) == (3 * 2 + 10 + 2, 4)
    assert metrics == {"loss": 5.0, "grounding": 7.0}


def test_scenes_are_made_once_and_kept_whole(tmp_path):
    made = []

    def make():
        made.append(0)
        return squares(0, 3)

    first, again = (grounding.kept(tmp_path / "scenes.npz", make) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["scenes.npz"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(scenes=0), r"grounding\.scenes"),
        (dict(step=5), r"step"),
        (dict(world="metaworld"), "the world metaworld does not say where things are"),
    ],
)
def test_what_a_recipe_cannot_ask_for(change, said):
    config = run_path(str(CONFIGS / "nano_so101.py"))["get_config"]().to_dict()
    config["control"] |= {name: change.pop(name) for name in tuple(change) if name == "world"}
    config["control"] |= {} if config["control"]["world"] == "so101" else {"simulator": None}
    with pytest.raises(ValueError, match=said):
        Pretraining.from_config(config | {"grounding": config["grounding"] | change})
