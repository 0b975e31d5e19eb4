"""openpi itself beside this package: its checkpoints give its commands here, and exports give our commands there."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.peer.client import Peer, openpi_interpreter
from metalora_jax.adaptation import adapter
from metalora_jax.adaptation import base as bases
from metalora_jax.adapters import LoRA, Placement, Rule, Theta, attach, join, split
from metalora_jax.policies import stages
from tests.policies import openpi_directories, small_sentencepiece

pytestmark = pytest.mark.openpi
ROOT = Path(__file__).parents[2]
PROMPT = "push the red cup into the drawer"
STATE, ACTION, WIDTH, HORIZON = 8, 7, 10, 5  # of LIBERO; of the policy
HEADS = dict(depth=2, num_heads=4, num_kv_heads=1, head_dim=8)
GEMMA = dict(gemma_2b=dict(width=24, mlp_dim=32, **HEADS), gemma_300m=dict(width=16, mlp_dim=24, **HEADS))
VISION = dict(width=16, depth=1, mlp_dim=24, num_heads=2)
LORA = dict(paligemma_variant="gemma_2b_lora", action_expert_variant="gemma_300m_lora")
PLACEMENT = (Rule(r"(text|expert)/layers/(self_attn/(q|v|o)_proj|mlp/up_proj)", LoRA(rank=2, b_std=0.3)),)


@dataclasses.dataclass(frozen=True)
class Case:
    """A config of openpi's, and what it does that weights do not tell."""

    config: str  # the one that trains
    served: str  # the one for plain weights
    model: dict[str, Any] = dataclasses.field(default_factory=dict)  # of both, where it differs
    lora: dict[str, Any] = dataclasses.field(
        default_factory=dict
    )  # of the one that trains, where it has no LoRA of its own
    convert: dict[str, Any] = dataclasses.field(default_factory=dict)  # what is said to `bases.convert`


DELTA = dict(relative=tuple(range(6)), of_differences=True)
CASES = {
    "pi0": Case("pi0_libero", "pi0_libero", convert=DELTA),
    "pi0, LoRA": Case("pi0_libero_low_mem_finetune", "pi0_libero", convert=DELTA),
    "pi0.5": Case("pi05_libero", "pi05_libero", convert=dict(discrete_state_input=False)),
    "pi0.5, state in the prompt, LoRA": Case("pi05_libero", "pi05_libero", dict(discrete_state_input=True), LORA),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """openpi's cache, with a small tokenizer where PaliGemma's is looked for."""
    folder = tmp_path_factory.mktemp("openpi")
    small_sentencepiece.train(folder / "big_vision", [PROMPT, "Task: lift, State: 0 128 255 -1;", "Action: "] * 20)
    (folder / "norm_stats.json").write_text(json.dumps({"norm_stats": openpi_directories.statistics(STATE, ACTION)}))
    return folder


@pytest.fixture(scope="module")
def openpi(home):
    environment = {"OPENPI_DATA_HOME": str(home), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    with Peer(openpi_interpreter(), "openpi_peer.py", **environment) as peer:
        peer.resize(gemma_sizes=GEMMA, vision=VISION, vocabulary=small_sentencepiece.SIZE)
        yield peer


class Trained(NamedTuple):
    """A checkpoint of openpi's, and what it is here."""

    case: Case
    directory: Path
    base: bases.Base
    adapter: tuple[Placement, Theta] | None  # of the checkpoint, if it has LoRA
    dtypes: list[str]  # of its tensors


@pytest.fixture(scope="module", params=CASES)
def trained(request, openpi, home, tmp_path_factory):
    case, folder = CASES[request.param], tmp_path_factory.mktemp("trained")
    stats = str(home / "norm_stats.json")
    wrote = openpi.write(config=case.config, directory=str(folder), stats=stats, model=sizes(case.model | case.lora))
    told = dict(tokenizer=home / "big_vision", widths=(STATE, ACTION), horizon=HORIZON) | case.convert
    if case.lora or "low_mem" in case.config:
        base, _, *found = bases.convert_with_adapter(wrote["directory"], **told)
    else:
        base, found = bases.convert(wrote["directory"], **told)[0], None
    return Trained(case, Path(wrote["directory"]), base, found and tuple(found), wrote["dtypes"])


def sizes(model: dict[str, Any]) -> dict[str, Any]:
    return dict(action_dim=WIDTH, action_horizon=HORIZON) | model


def look() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    seen = {name: rng.integers(0, 256, (224, 224, 3)).astype(np.uint8) for name in ("image", "wrist_image")}
    state = rng.normal(size=STATE).astype(np.float32)
    named = {f"observation/{name}": value for name, value in (seen | {"state": state}).items()}
    return named | {"noise": rng.normal(size=(HORIZON, WIDTH)).astype(np.float32)}


def theirs(openpi, folder, config, directory, model, weights) -> np.ndarray:
    """openpi's commands (horizon, 7) from `look`; float32 weights are computed with in float32."""
    kind = {"dtype": "float32"} if weights == "float32" else {}
    openpi.load(config=config, directory=str(directory), model=sizes(model) | kind, weights=weights)
    np.savez(folder / "look.npz", **look())
    openpi.infer(source=str(folder / "look.npz"), file=str(folder / "chunk.npy"), prompt=PROMPT)
    return np.load(folder / "chunk.npy")


def ours(base: bases.Base, adapter: tuple[Placement, Theta] | None = None) -> np.ndarray:
    """Ours, with the base's statistics."""
    model = base.model
    if adapter is not None:
        placement, theta = adapter
        graph, _, phi = split(attach(model, placement, jax.random.key(0)))
        model = join(graph, theta, phi)
    seen = look()
    images = np.stack([seen["observation/image"], seen["observation/wrist_image"]])[None]
    state = seen["observation/state"][None]
    observation = base.preprocessor.observe(images, state, PROMPT)
    chunk = nnx.jit(lambda model: stages.sample(model, observation, jnp.asarray(seen["noise"])[None], None))(model)
    return base.preprocessor.commands(np.asarray(chunk), state)[0]


def apart(found: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(found - other).max())


def test_its_checkpoints_give_its_commands_here(trained, openpi, tmp_path):
    case, base = trained.case, trained.base
    assert trained.dtypes == (["bfloat16", "float32"] if "low_mem" in case.config else ["float32"])
    there = theirs(openpi, tmp_path, case.config, trained.directory, case.model | case.lora, "float32")
    here = ours(base, trained.adapter)
    print(f"commands of spread {there.std():.2g} are off by {apart(here, there):.1g}")
    np.testing.assert_allclose(here, there, atol=1e-4)
    assert trained.adapter is None or apart(ours(base), there) > 0.01


@pytest.mark.parametrize("form", ["merged", "openpi_lora"])
def test_its_exports_give_our_commands_there(form, trained, openpi, home, tmp_path):
    base, case = trained.base, trained.case
    placement, theta = trained.adapter or (PLACEMENT, split(attach(base.model, PLACEMENT, jax.random.key(0))).theta)
    bases.save(tmp_path / "base", base)
    adapter.save(tmp_path / "adapter", base, placement, {"theta": theta}, config={})
    paths = "--adapter=adapter", "--base=base", "--output=out", f"--policy={trained.directory}"
    said = metalora(tmp_path, "export", *paths, f"--format={form}")
    assert ("DeltaActions and AbsoluteActions" in said) == ("relative" in case.convert)
    here = ours(base, (placement, theta))
    served = case.served, tmp_path / "out", case.model
    if form == "openpi_lora":
        lora = {"pi0_libero": "pi0_libero_low_mem_finetune"}.get(case.served, case.served)
        served = lora, tmp_path / "out", case.model | LORA
    there = theirs(openpi, tmp_path, *served, "float32")
    effect = apart(here, ours(base))
    print(f"an adapter that moves commands by {effect:.2g} is off by {apart(here, there):.1g}")
    assert effect > 0.01
    np.testing.assert_allclose(here, there, atol=1e-4)
    # As it is served: weights and arithmetic in bfloat16.
    half = theirs(openpi, tmp_path, *served, "bfloat16")
    told = dict(tokenizer=home / "big_vision", widths=(STATE, ACTION), horizon=HORIZON) | case.convert
    take = bases.convert if form == "merged" else bases.convert_with_adapter
    own, _, *adapted = take(tmp_path / "out", dtype="bfloat16", param_dtype="bfloat16", **told)
    rounded = ours(own, tuple(adapted) or None)
    print(f"in bfloat16 by {apart(half, here):.1g}, ours by {apart(rounded, here):.1g}")
    assert apart(half, here) < 3 * apart(rounded, here) < 0.2 * effect


def metalora(where: Path, *words: str) -> str:
    command = [sys.executable, "-m", "metalora_jax.commands", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=where, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
