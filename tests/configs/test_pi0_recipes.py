"""The figures in the recipes of pi0's and pi0.5's real sizes are those of the network that they are for."""

import math
import re
from pathlib import Path

import jax
import pytest
from flax import nnx

from metalora_jax import adapters
from metalora_jax.adapters.placement import from_json
from metalora_jax.policies import registry
from metalora_jax.policies.pi0 import openpi_names
from metalora_jax.policies.pi0.config import Pi0Config
from metalora_jax.policies.pi0.model import build
from tests.configs.test_configs import CONFIGS, NAMES

SIZES = {"pi0": Pi0Config.pi0_base(), "pi05": Pi0Config.pi05_base()}


@pytest.mark.parametrize("name", SIZES)
def test_what_a_recipe_says_of_its_cost(name):
    config, made = SIZES[name], NAMES[name]["get_config"]()
    rules = from_json(made.to_dict()["placement"])

    def adapted():
        return adapters.split(adapters.attach(build(config, rngs=nnx.Rngs(0)), rules, jax.random.key(0))).theta

    weights = 2 * sum(math.prod(leaf.shape) for leaf in openpi_names.leaves(config).values())
    counted = registry.family(name).operations(config, len(made.data.cameras))
    figures = (
        f"{weights / 1e9:.1f} GB",
        f"{adapters.count(nnx.eval_shape(adapted)).total / 1e6:.1f} million parameters",
        f"{counted.encode / 1e12:.2f} TFLOP",
        f"{counted.condition / 1e12:.1f} in the decoder",
        f"{counted.velocity / 1e12:.3f} for each velocity",
    )
    text = re.sub(r"\s+", " ", Path(CONFIGS, f"{name}.py").read_text())
    missing = [figure for figure in figures if figure not in text]
    assert not missing, missing
