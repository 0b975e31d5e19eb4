"""Presets: the parameters that their papers and programs state, and nothing that cannot learn."""

import jax
import pytest
from flax import nnx

from metalora_jax import adapters
from metalora_jax.policies.smolvla import convert, presets
from metalora_jax.policies.smolvla.config import SmolVLAConfig
from metalora_jax.policies.smolvla.model import SmolVLA

DEAD = 57_600


def theta_of(name, config=None, **options):
    config = config or SmolVLAConfig.base()

    def build():
        model = SmolVLA(config, rngs=nnx.Rngs(0))
        return adapters.split(adapters.attach(model, presets.preset(name, **options), jax.random.key(0))).theta

    return nnx.eval_shape(build)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("plan", 2_834_304 - DEAD),
        ("decoder", 409_600 + 675_840 - DEAD),
        ("expert", 645_120 + 1_062_912),
        ("head", 40_832),
        ("lerobot", 742_656),
        ("ftm", 2 * 960),
        ("fla", 12 * 16 * (4 * (768 + 768) + 2 * (768 + 3072))),  # q, k, v, out; fc1, fc2
    ],
)
def test_the_counts_are_those_of_the_originals(name, count):
    assert adapters.count(theta_of(name)).total == count


def test_what_adapts_to_cameras_alone_is_where_the_paper_has_it():
    ftm, fla = theta_of("ftm"), theta_of("fla")
    assert {part: leaf.shape for part, leaf in ftm["connector"].items()} == {"scale": (1, 960), "shift": (1, 960)}
    linear = convert.module_names(SmolVLAConfig.base()).values()  # every `nn.Linear` of the published model
    assert set(fla) == {"/".join(slot.path) for slot in linear if slot.path[0] == "vision"}
    assert SmolVLA.stage_of(ftm) == SmolVLA.stage_of(fla) == "observation"


def test_dead_adapters_are_there_when_asked_for():
    assert adapters.count(theta_of("plan", dead=True)).total == 2_834_304


def test_all_linear_leaves_out_dead_maps_alone():
    every = nnx.eval_shape(lambda: SmolVLA(SmolVLAConfig.base(), rngs=nnx.Rngs(0)))
    left_out = set(adapters.linear_maps(every)) - set(theta_of("all_linear"))
    assert {path.rsplit("/", 2)[0] for path in left_out} == {"text/last"}
    assert len(left_out) == 5


@pytest.mark.parametrize("name", presets.NAMES)
def test_every_preset_fits_every_size(name):
    assert theta_of(name, SmolVLAConfig.nano())


def test_ranks_can_be_chosen_and_names_are_checked():
    (rule,) = presets.preset("expert", rank=2, b_std=0.02)
    assert (rule.kind.rank, rule.kind.alpha, rule.kind.b_std) == (2, 4.0, 0.02)
    with pytest.raises(ValueError, match="no placement named 'heads'; choose one of plan, head"):
        presets.preset("heads")
