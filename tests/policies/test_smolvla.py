"""What SmolVLA promises beyond parity: who sees whom, what padding may not change, and how it compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_smolvla import LowRank, build, tiny

from metalora_jax.policies import flow, transformer
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import Context, SmolVLA, time_embedding
from metalora_jax.policies.transformer import attend, rotate
from metalora_jax.types import ActionChunk, Observation


@pytest.fixture(scope="module")
def model() -> SmolVLA:
    return build()


def observe(seed: int = 0) -> Observation:
    """Two frames: a ragged pair of instructions; the second frame lacks the second camera."""
    rng = np.random.default_rng(seed)
    return Observation(
        images=jnp.asarray(rng.uniform(-1, 1, (2, 2, 16, 16, 3)), jnp.float32),
        image_mask=jnp.array([[True, True], [True, False]]),
        tokens=jnp.asarray(rng.integers(3, 37, (2, 6)), jnp.int32),
        token_mask=jnp.arange(6)[None] < jnp.array([[4], [6]]),
        state=jnp.asarray(rng.normal(size=(2, 4)), jnp.float32),
    )


def noisy() -> tuple[jax.Array, jax.Array]:
    return jax.random.normal(jax.random.key(1), (2, 5, 4)), jnp.array([0.3, 0.9])


# Jitted once for the module, so that tests of equal shapes share a compilation.
context_of = nnx.jit(lambda model, observation: model.context(observation))
velocity_of = nnx.jit(lambda model, context, x_t, t: model.velocity(context, x_t, t))


def act(model: SmolVLA, observation: Observation) -> jax.Array:
    return velocity_of(model, context_of(model, observation), *noisy())


def influence(model: SmolVLA) -> np.ndarray:
    """(T, T) bool: whether the velocity of step i depends on the noisy action of step j."""
    x_t, t = noisy()
    nudges = jnp.concatenate([jnp.zeros((1, 5)), jnp.eye(5)])  # none, then one step at a time

    @nnx.jit
    def velocities(model):
        context = model.context(observe())
        return jax.vmap(lambda nudge: model.velocity(context, x_t + nudge[None, :, None], t))(nudges)

    v = np.asarray(velocities(model))  # (1 + T, B, T, D)
    return (v[1:] != v[:1]).any(axis=(1, 3)).T


def test_actions_are_causal_within_the_chunk(model):
    np.testing.assert_array_equal(influence(model), np.tri(5, dtype=bool))


def test_cross_attention_alone_keeps_actions_apart():
    np.testing.assert_array_equal(influence(build(self_attn_every_n_layers=0)), np.eye(5, dtype=bool))


def test_images_and_words_never_see_the_state(model):
    frame = observe()
    features = nnx.jit(lambda m: m.encode(frame.images))(model)

    @nnx.jit
    def moved_by_state(model):
        return jax.jvp(
            lambda state: model.condition(features, *frame[1:4], state).k, (frame.state,), (jnp.ones_like(frame.state),)
        )[1]

    moved = np.abs(moved_by_state(model)).max(axis=(1, 3, 4)) > 0  # (B, S)
    # Invalid tokens may see anything, for nobody sees them.
    valid = np.concatenate([np.repeat(frame.image_mask, 4, axis=1), frame.token_mask], axis=1)
    assert not moved[:, :-1][valid].any()
    assert moved[:, -1].all()


def test_a_masked_camera_has_no_influence(model):
    frame = observe()
    other = frame._replace(images=frame.images.at[1, 1].set(0.5))
    np.testing.assert_array_equal(act(model, frame), act(model, other))
    visible = frame._replace(images=frame.images.at[1, 0].set(0.5))
    assert np.abs(act(model, frame) - act(model, visible))[1].max() > 1e-4


def test_padding_of_the_instruction_has_no_influence(model):
    frame = observe()
    expected = act(model, frame)
    other_ids = frame._replace(tokens=jnp.where(frame.token_mask, frame.tokens, 7))
    np.testing.assert_array_equal(act(model, other_ids), expected)
    longer = frame._replace(
        tokens=jnp.pad(frame.tokens, ((0, 0), (0, 3))), token_mask=jnp.pad(frame.token_mask, ((0, 0), (0, 3)))
    )
    np.testing.assert_allclose(act(model, longer), expected, atol=1e-5)


def test_prefix_length_pads_and_changes_nothing(model):
    frame = observe()
    padded = build(prefix_length=25)
    nnx.update(padded, nnx.state(model))
    prefix = padded.embed_prefix(padded.encode(frame.images), *frame[1:])
    assert prefix.embeddings.shape[1] == 25
    assert not prefix.valid[:, 15:].any()
    np.testing.assert_allclose(act(padded, frame), act(model, frame), atol=1e-5)


def test_special_tokens_stand_around_each_camera_unscaled_and_unmasked(model):
    frame = observe()
    special = build(add_image_special_tokens=True)
    nnx.update(special, nnx.state(model))
    features = special.encode(frame.images)
    with_tokens = special.embed_prefix(features, *frame[1:])
    without = model.embed_prefix(features, *frame[1:])
    tokens = features.shape[2]
    block = with_tokens.embeddings[:, tokens + 3 : 2 * (tokens + 3)]  # the second camera's
    table = special.text.embed_tokens.embedding[...]
    np.testing.assert_array_equal(block[:, :2], jnp.broadcast_to(table[None, jnp.array([38, 39])], (2, 2, 24)))
    np.testing.assert_array_equal(block[:, -1], jnp.broadcast_to(table[None, 38], (2, 24)))
    np.testing.assert_array_equal(block[:, 2:-1], without.embeddings[:, tokens : 2 * tokens])
    np.testing.assert_array_equal(with_tokens.valid[1, tokens + 3 : 2 * tokens + 6], [True] * 2 + [False] * 4 + [True])


SCHEDULES = {
    "every other": dict(layers=4),
    "remainder of one": dict(layers=3),
    "remainder with cross": dict(layers=5, self_attn_every_n_layers=3),
    "no full group": dict(layers=3, self_attn_every_n_layers=4),
    "all self by count": dict(layers=2, self_attn_every_n_layers=1),
    "all self by mode": dict(layers=2, attention_mode="self_attn"),
    "all cross": dict(layers=2, self_attn_every_n_layers=0),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_scanned_expert_equals_a_plain_loop_over_its_layers(schedule):
    model = build(**schedule)
    config, expert = model.config, model.expert
    keys = iter(jax.random.split(jax.random.key(0), 3))
    h = jax.random.normal(next(keys), (2, 5, config.expert_hidden))
    k, v = (jax.random.normal(next(keys), (config.layers, 2, 7, 2, 8)) for _ in range(2))
    valid = jnp.arange(7)[None] < jnp.array([[7], [4]])
    prefix_mask = jnp.broadcast_to(valid[:, None], (2, 5, 7))
    full_mask = jnp.concatenate([prefix_mask, jnp.broadcast_to(jnp.tri(5, dtype=bool)[None], (2, 5, 5))], axis=2)
    local = jnp.broadcast_to(jnp.arange(5)[None], (2, 5))
    positions = local + valid.sum(axis=1)[:, None]

    def loop(expert, h):
        every = 1 if config.attention_mode == "self_attn" else config.self_attn_every_n_layers
        index = {"self": 0, "cross": 0}
        for i in range(config.layers):
            kind = "self" if every > 0 and i % every == 0 else "cross"
            graph, state = nnx.split(getattr(expert, f"{kind}_layers"))
            layer = nnx.merge(graph, jax.tree.map(lambda x, n=index[kind]: x[n], state))
            index[kind] += 1
            z = layer.input_layernorm(h)
            q = layer.self_attn.queries(z)
            if kind == "self":
                keys = jnp.concatenate([k[i], rotate(layer.self_attn.keys(z), positions)], axis=1)
                values = jnp.concatenate([v[i], layer.self_attn.values(z)], axis=1)
                attended = attend(rotate(q, positions), keys, values, full_mask)
            else:
                keys = layer.self_attn.keys(k[i].reshape(2, 7, -1))
                values = layer.self_attn.values(v[i].reshape(2, 7, -1))
                attended = attend(rotate(q, local), keys, values, prefix_mask)
            h = layer.finish(h, attended)
        return expert.norm(h)

    np.testing.assert_allclose(nnx.jit(lambda e: e(h, k, v, valid))(expert), loop(expert, h), atol=1e-5, rtol=1e-5)


def test_program_size_does_not_grow_with_layers():
    def equations(**sizes) -> int:
        graph, state = nnx.split(nnx.eval_shape(lambda: SmolVLA(tiny(**sizes), rngs=nnx.Rngs(0))))

        def forward(state) -> jax.Array:
            model = nnx.merge(graph, state)
            return model.velocity(model.context(observe()), *noisy()).sum()

        return str(jax.make_jaxpr(jax.grad(forward))(state)).count(" = ")

    assert equations(layers=4, vision_layers=2) == equations(layers=16, vision_layers=12)


def test_draws_share_one_prefix_pass(model, monkeypatch):
    calls = {"encode": 0, "condition": 0}
    for name in calls:
        original = getattr(SmolVLA, name)

        def counted(self, *args, name=name, original=original):
            calls[name] += 1
            return original(self, *args)

        monkeypatch.setattr(SmolVLA, name, counted)
    target = ActionChunk(jnp.ones((2, 5, 4)), jnp.zeros((2, 5), bool))
    key = jax.random.key(3)

    def loss(model):
        context = model.context(observe())
        return flow.draws_loss(lambda x, t: model.velocity(context, x, t), target, key, 3, 4)

    together = nnx.jit(loss)(model)
    assert calls == {"encode": 1, "condition": 1}

    noise_key, time_key = jax.random.split(key)
    noise, t = jax.random.normal(noise_key, (3, 2, 5, 4)), flow.sample_time(time_key, (3, 2))
    context = context_of(model, observe())
    one_by_one = []
    for i in range(3):
        x_t, u = flow.interpolate(target.actions, noise[i], t[i])
        one_by_one.append(flow.flow_loss(velocity_of(model, context, x_t, t[i]), u, target.is_pad, 4))
    np.testing.assert_allclose(together, np.mean(one_by_one), rtol=1e-5)


def test_contexts_index_like_frames(model):
    context = context_of(model, observe())
    x_t, t = noisy()
    swapped: Context = jax.tree.map(lambda leaf: leaf[::-1], context)
    back = velocity_of(model, swapped, x_t[::-1], t[::-1])[::-1]
    np.testing.assert_allclose(back, act(model, observe()), atol=1e-5)


def test_a_stacked_linear_map_can_be_replaced():
    frame = observe()
    places = [("text", "layers", "self_attn", "k_proj"), ("expert", "cross_layers", "mlp", "up_proj"), ("connector",)]
    adapted, fused = build(), build()
    before = act(adapted, frame)
    for seed, path in enumerate(places):
        parent, other = adapted, fused
        for name in path[:-1]:
            parent, other = getattr(parent, name), getattr(other, name)
        base = getattr(parent, path[-1])
        *layers, inputs, outputs = base.kernel.shape
        a = 0.3 * jax.random.normal(jax.random.key(seed), (*layers, inputs, 2))
        b = 0.3 * jax.random.normal(jax.random.key(seed + 10), (*layers, 2, outputs))
        setattr(parent, path[-1], LowRank(base, a, b))
        kernel = getattr(other, path[-1]).kernel
        kernel.set_value(kernel[...] + a @ b)
    after = act(adapted, frame)
    np.testing.assert_allclose(after, act(fused, frame), atol=1e-4)
    assert np.abs(after - before).max() > 1e-2


def test_bfloat16_stays_near_float32_and_returns_float32(model):
    half = build(dtype="bfloat16")
    nnx.update(half, nnx.state(model))
    v = act(half, observe())
    assert v.dtype == jnp.float32
    np.testing.assert_allclose(v, act(model, observe()), atol=0.1)


def test_time_embedding_matches_double_precision():
    t = np.linspace(0, 1, 1001, dtype=np.float32)
    period = 4e-3 * (4.0 / 4e-3) ** np.linspace(0, 1, 36)
    angle = 2 * np.pi * t.astype(np.float64)[:, None] / period[None]
    expected = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    embed = jax.jit(lambda t: time_embedding(t, 72, 4e-3, 4.0))
    np.testing.assert_allclose(embed(t), expected, atol=2e-6)
    slope = jax.jvp(embed, (jnp.asarray(t),), (jnp.ones(1001),))[1]
    exact = 2 * np.pi / period * np.concatenate([np.cos(angle), -np.sin(angle)], axis=1).reshape(1001, 2, 36)
    np.testing.assert_allclose(slope, exact.reshape(1001, 72), atol=1e-2)


def test_wrong_inputs_are_named(model):
    frame = observe()
    features = jnp.zeros((2, 2, 4, 24))
    with pytest.raises(ValueError, match=r"images .*\(B, C, 16, 16, 3\)"):
        model.encode(frame.images[:, :, :8])
    with pytest.raises(ValueError, match=r"state \(2, 3\).*width 4"):
        model.embed_prefix(features, *frame[1:4], frame.state[:, :3])
    with pytest.raises(ValueError, match=r"x_t \(2, 5, 3\)"):
        model.embed_suffix(jnp.zeros((2, 5, 3)), jnp.zeros(2))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", 0),
        ("patch_size", 7),
        ("pixel_shuffle", 3),
        ("heads", 5),
        ("head_dim", 7),
        ("expert_width_multiplier", 0.1),
        ("attention_mode", "both"),
        ("self_attn_every_n_layers", -1),
        ("min_period", 5.0),
        ("dtype", "int8"),
        ("pad_token_id", 40),
        ("chunk_size", 2.5),
    ],
)
def test_bad_config_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        tiny(**{field: value})


def test_config_round_trips_and_refuses_strangers():
    config = tiny(expert_width_multiplier=0.75)
    assert SmolVLAConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="colour"):
        SmolVLAConfig.from_dict(config.to_dict() | {"colour": 1})
    with pytest.raises(ValueError, match="layers"):
        SmolVLAConfig.from_dict({k: v for k, v in config.to_dict().items() if k != "layers"})


@pytest.mark.parametrize("masked", [False, True])
def test_attention_head_by_head_is_attention(masked, monkeypatch):
    """Small logits are computed at once, large ones a head at a time on a CPU: the same numbers and gradients."""
    keys = jax.random.split(jax.random.key(0), 4)
    q = jax.random.normal(keys[0], (2, 7, 6, 8))
    k, v = (jax.random.normal(key, (2, 5, 3, 8)) for key in keys[1:3])
    mask = jax.random.bernoulli(keys[3], 0.6, (2, 7, 5)).at[..., 0].set(True) if masked else None

    def both(cache):
        monkeypatch.setattr(transformer, "CACHE", cache)

        @jax.jit
        def run(q, k, v):
            return jax.value_and_grad(lambda *x: jnp.sin(attend(*x, mask)).sum(), (0, 1, 2))(q, k, v)

        return run(q, k, v)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), both(0), both(2**20))
