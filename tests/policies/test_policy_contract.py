"""What every family of policies owes the rest of the package; a new one is added to FAMILIES."""

import dataclasses
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from metalora_jax import adapters, trees
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.agent import Agent
from metalora_jax.adaptation.learner import learner, loss_fn
from metalora_jax.adapters import LoRA, Rule
from metalora_jax.data import normalize
from metalora_jax.data.frames import gather
from metalora_jax.policies import registry, stages
from metalora_jax.policies.policy import STAGES, Family
from metalora_jax.training.pretrain import train_tokenizer
from metalora_jax.types import ActionChunk, Batch, Observation
from tests.policies import tiny_pi0, tiny_smolvla, toy
from tests.tiny_base import INSTRUCTIONS, make_demos

FAMILIES = {
    "smolvla": lambda: tiny_smolvla.build(image_size=64, patch_size=16, vocab_size=320, max_tokens=40, num_steps=2),
    "toy": toy.build,
    "pi0": lambda: tiny_pi0.build(vocab_size=320, max_tokens=40),
    "pi05": lambda: tiny_pi0.build(pi05=True, vocab_size=320, max_tokens=96),
    "pi05, stateless": lambda: tiny_pi0.build(pi05=True, discrete_state_input=False, vocab_size=320, max_tokens=40),
}
PROMPT_ALONE = {"pi05"}  # types whose network does not read the state: it comes by the prompt, if at all
KEY = jax.random.key(0)
B = 3


@pytest.fixture(params=FAMILIES, scope="module")
def base(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(registry.PLUGINS, "tests.policies.toy")
        demos = [demo for task in INSTRUCTIONS for demo in make_demos(task, cameras=2)]
        tokenizer = train_tokenizer(list(INSTRUCTIONS.values()), 320)
        yield bases.make(FAMILIES[request.param](), tokenizer, normalize.compute(demos))


@pytest.fixture(scope="module")
def seen(base):
    rng, sizes = np.random.default_rng(0), base.sizes
    observation = Observation(
        rng.uniform(-1, 1, (B, sizes.cameras, sizes.image, sizes.image, 3)).astype(np.float32),
        np.ones((B, sizes.cameras), bool),
        rng.integers(1, sizes.vocabulary, (B, sizes.tokens)).astype(np.int32),
        np.arange(sizes.tokens) < np.array([[4], [sizes.tokens], [9]]),  # ragged prompts
        rng.normal(size=(B, sizes.state)).astype(np.float32),
    )
    actions = rng.normal(size=(B, sizes.chunk, sizes.action)).astype(np.float32)
    return observation, ActionChunk(actions, np.zeros(actions.shape[:2], bool))


def velocity(model, inputs, sizes):
    x_t = jax.random.normal(jax.random.key(1), (B, sizes.chunk, sizes.action))
    t = jnp.linspace(0.2, 0.9, B)
    return jax.jit(lambda x: model.velocity(stages.context_of(model, x), x_t, t))(inputs)


def everywhere(base):
    return (Rule(".*", LoRA(rank=2, b_std=0.3)),)


def test_the_registry_finds_the_family(base):
    assert base.family.type == base.model.type
    for name in base.family.presets:
        assert adapters.attach(base.model, base.family.preset(name, rank=2), KEY)
    with pytest.raises(ValueError, match=f"no-such-preset.*{base.family.presets[0]}"):
        base.family.preset("no-such-preset")


def has(base, method):
    return getattr(type(base.family), method) is not getattr(Family, method)


def test_what_a_family_leaves_out_is_refused_by_name(base):
    calls = {
        "create": lambda: base.family.create({}, nnx.Rngs(0)),
        "prepare_float_images": lambda: base.family.prepare_float_images(jnp.zeros((8, 8, 3)), 8),
        "export_merged": lambda: base.family.export_merged(None, None, None, {}, "float32"),
        "export_peft": lambda: base.family.export_peft(None, (), {}, None, "", None, {}, {}),
        "export_lora": lambda: base.family.export_lora(None, (), {}, None, None, {}, "float32"),
        "operations": lambda: base.family.operations(base.config, 1),
    }
    for method in (name for name in calls if not has(base, name)):
        with pytest.raises(
            ValueError, match=rf"^a {base.family.type} policy cannot be .*: its family has no {method};"
        ):
            calls[method]()


def test_a_family_that_can_be_pretrained(base):
    """`create` is a function of the seed; what a program shows a policy as floats is what a robot shows it as bytes."""
    if not has(base, "create"):
        pytest.skip("optional")
    fields = base.config.to_dict()
    one, again, other = (base.family.create(fields, nnx.Rngs(seed)) for seed in (3, 3, 4))
    weights = [trees.digest(nnx.to_pure_dict(nnx.state(model, nnx.Param))) for model in (one, again, other)]
    assert weights[0] == weights[1] != weights[2]
    assert (one.type, one.config.to_dict()) == (base.family.type, base.config.to_dict())
    images = frames(base)[0]
    for size in (images.shape[-2], images.shape[-2] // 2):
        floats = jax.jit(base.family.prepare_float_images, static_argnums=1)(images / np.float32(255), size)
        np.testing.assert_allclose(floats, base.family.prepare_images(images, size), atol=1e-6)


def test_operations_are_counted_by_stage(base):
    if not has(base, "operations"):
        pytest.skip("optional")
    one, two = (base.family.operations(base.config, cameras) for cameras in (1, 2))
    assert two.encode == 2 * one.encode > 0
    assert two.velocity > two.velocity_attention > 0
    assert two.condition > two.condition_attention > one.condition_attention > 0


def test_a_frame_may_enter_after_any_stage(base, seen):
    whole = velocity(base.model, seen[0], base.sizes)
    assert whole.shape == (B, base.sizes.chunk, base.sizes.action)
    for stage in STAGES:
        front = jax.jit(lambda x, stage=stage: stages.advance(base.model, x, stage))(seen[0])
        assert {leaf.shape[0] for leaf in jax.tree.leaves(front)} == {B}  # batch first, so that rows can be cached
        np.testing.assert_allclose(velocity(base.model, front, base.sizes), whole, atol=2e-5)


def test_stages_in_bfloat16_are_near_float32(base, seen):
    """Within 10 % of the largest velocity: eight bits of a number, through every layer."""
    if not dataclasses.is_dataclass(base.config) or not hasattr(base.config, "param_dtype"):
        pytest.skip("the family has one type of numbers")
    config = dataclasses.replace(base.config, dtype="bfloat16", param_dtype="bfloat16")
    _, narrow = nnx.split(nnx.eval_shape(lambda: type(base.model)(config, rngs=nnx.Rngs(0))))
    graph = nnx.split(nnx.eval_shape(lambda: type(base.model)(config, rngs=nnx.Rngs(0))))[0]
    model = nnx.merge(graph, jax.tree.map(lambda a, b: a.astype(b.dtype), nnx.split(base.model)[1], narrow))
    wide, found = velocity(base.model, seen[0], base.sizes), velocity(model, seen[0], base.sizes)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wide, atol=0.1 * np.abs(wide).max())
    for stage in STAGES[1:]:
        front = jax.jit(lambda x, stage=stage: stages.advance(model, x, stage))(seen[0])
        np.testing.assert_allclose(velocity(model, front, base.sizes), found, atol=0.05 * np.abs(wide).max())


def test_frames_of_a_batch_do_not_mix(base, seen):
    whole = velocity(base.model, seen[0], base.sizes)
    first = np.arange(B) == 0
    mixed = jax.tree.map(lambda x: np.where(first.reshape(-1, *[1] * (x.ndim - 1)), x, x[::-1]), seen[0])
    apart = velocity(base.model, mixed, base.sizes)
    np.testing.assert_allclose(apart[0], whole[0], atol=2e-5)
    assert np.abs(apart[2] - whole[2]).max() > 1e-4


def test_padding_of_a_prompt_and_absent_cameras_are_not_seen(base, seen):
    observation = seen[0]
    mask = observation.image_mask.copy()
    mask[:, 1] = False
    hidden = observation._replace(image_mask=mask)
    other = hidden._replace(
        images=np.where(mask[..., None, None, None], hidden.images, -hidden.images),
        tokens=np.where(hidden.token_mask, hidden.tokens, 0),
    )
    known = velocity(base.model, hidden, base.sizes)
    np.testing.assert_allclose(velocity(base.model, other, base.sizes), known, atol=2e-5)
    words = np.where(hidden.token_mask, (hidden.tokens + 1) % base.sizes.vocabulary, 0)
    for changed in (observation, hidden._replace(tokens=words)):
        assert np.abs(velocity(base.model, changed, base.sizes) - known).max() > 1e-4
    moved = velocity(base.model, hidden._replace(state=hidden.state + 1), base.sizes)
    assert (np.abs(moved - known).max() > 1e-4) == (base.model.type not in PROMPT_ALONE)


def test_no_adapter_reaches_below_its_stage(base, seen):
    plain = {stage: jax.jit(lambda x, s=stage: stages.advance(base.model, x, s))(seen[0]) for stage in STAGES}
    paths = defaultdict(list)
    for path in adapters.linear_maps(base.model):
        paths[base.model.stage_of([path])].append(path)
    for stage, above in paths.items():  # all maps of a stage at once: any that reached below it would show
        learn = learner(base, (Rule("|".join(above), LoRA(rank=2, b_std=0.5)),), KEY)
        assert learn.stage == stage
        front = jax.jit(lambda start, x: stages.advance(start.model(), x, start.stage))(learn, seen[0])
        assert trees.digest(jax.tree.map(np.asarray, front)) == trees.digest(jax.tree.map(np.asarray, plain[stage]))
    with pytest.raises(ValueError, match="is in no known part of a"):
        base.model.stage_of(["llm/layers/q_proj"])


def test_split_join_and_fuse(base, seen):
    learn = learner(base, everywhere(base), KEY)
    adapted = velocity(learn.model(), seen[0], base.sizes)
    assert np.abs(adapted - velocity(base.model, seen[0], base.sizes)).max() > 1e-3
    fused = velocity(adapters.fuse(learn.model()), seen[0], base.sizes)
    np.testing.assert_allclose(fused, adapted, rtol=2e-3, atol=2e-3)
    again = adapters.split(learn.model())
    assert trees.digest(again.theta) == trees.digest(learn.theta)


def test_adapters_without_effect_are_named(base, seen):
    learn = learner(base, everywhere(base), KEY)
    gradient = jax.jit(jax.grad(lambda theta, start, batch: loss_fn(start, draws=1)(theta, batch, KEY)))
    found = gradient(learn.theta, learn, Batch(*seen))
    dead = {name.split("[")[0] for name in adapters.dead_adapters(found)}
    assert dead == set(base.family.without_effect(learn.theta))


def test_many_draws_share_one_context(base, seen):
    learn = learner(base, base.family.preset(base.family.presets[0], rank=2, b_std=0.1), KEY)
    loss = jax.jit(lambda start, batch: loss_fn(start, draws=3)(start.theta, batch, KEY))
    front = jax.jit(lambda start, x: stages.advance(start.model(), x, start.stage))(learn, seen[0])
    np.testing.assert_allclose(loss(learn, Batch(front, seen[1])), loss(learn, Batch(*seen)), rtol=1e-5)


def test_what_is_saved_is_loaded(base, tmp_path):
    bases.save(tmp_path / "base", base)
    again = bases.load(tmp_path / "base")
    assert again.fingerprint == base.fingerprint
    assert type(again.model) is type(base.model)
    learn = learner(base, everywhere(base), KEY)
    observed = base.preprocessor.observe(*frames(base), "push the puck")
    np.testing.assert_array_equal(again.preprocessor.observe(*frames(base), "push the puck").tokens, observed.tokens)
    assert jax.tree.structure(learner(again, everywhere(again), KEY)) == jax.tree.structure(learn)


def frames(base):
    demo = make_demos("push", cameras=2)[0]
    return demo.images[:B], demo.state[:B]


def test_an_agent_acts_as_its_parts_do(base):
    images, state = frames(base)
    learn = learner(base, everywhere(base), KEY)
    agent = Agent(base, learn)
    chunk = agent.act(images, state, "push the puck", KEY)
    assert chunk.shape == (B, base.sizes.chunk, 4)
    observation = base.preprocessor.observe(images, state, "push the puck")
    noise = jax.random.normal(KEY, (B, base.sizes.chunk, base.sizes.action))
    expected = base.preprocessor.commands(np.asarray(nnx.jit(stages.sample)(learn.model(), observation, noise)), state)
    np.testing.assert_allclose(chunk, expected, atol=1e-5)
    np.testing.assert_allclose(Agent(base, learn, fuse=True).act(images, state, "push the puck", KEY), chunk, atol=1e-2)
    plain = Agent(base).act(images, state, "push the puck", KEY)
    assert np.abs(plain - chunk).max() > 1e-3
    agent.swap(None)
    np.testing.assert_array_equal(agent.act(images, state, "push the puck", KEY), plain)


def test_relative_actions_start_from_the_state(base):
    """Under the same numbers, a base that predicts differences commands what the other does, plus the state."""
    images, state = frames(base)
    mask = np.array([True, True, True, False])
    apart = bases.make(base.model, base.tokenizer, base.statistics._replace(relative=mask))
    assert apart.fingerprint != base.fingerprint
    plain, moved = (Agent(each).act(images, state, "push the puck", KEY) for each in (base, apart))
    np.testing.assert_allclose(moved, plain + np.where(mask, state, 0)[:, None], atol=1e-5)


def test_frames_and_observations_are_the_same_thing(base):
    demos = {task: make_demos(task, cameras=2) for task in INSTRUCTIONS}
    made = gather(demos, base.preprocessor)
    demo, first = demos["push"][1], made.first_row["push"][1]
    rows = first + np.arange(len(demo.actions))
    direct = base.preprocessor.observe(demo.images, demo.state, demo.instruction)
    jax.tree.map(np.testing.assert_array_equal, made.observe(rows), direct)


def test_a_plugin_that_raises_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_policy.py").write_text("FAMILY = 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(registry.PLUGINS, "broken_policy")
    with pytest.raises(ValueError, match="METALORA_POLICIES names 'broken_policy', which raises ZeroDivisionError"):
        registry.family("mine")
