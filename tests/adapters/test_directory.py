import importlib.metadata
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax

from metalora_jax import __version__, trees
from metalora_jax.adapters import directory
from metalora_jax.adapters.directory import AdapterError, Probe
from metalora_jax.machine import files

BASE = "base-fingerprint"
X = np.linspace(-1, 1, 3, dtype=np.float32)


def make_theta(seed=0):
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    return {
        "expert/layers/q_proj": {"a": jax.random.normal(a, (2, 3, 2)), "b": jax.random.normal(b, (2, 2, 3))},
        "head/out": {"a": jax.random.normal(c, (3, 1)).astype(jnp.bfloat16), "b": jnp.ones((1, 3))},
    }


def run_probe(theta):
    q = theta["expert/layers/q_proj"]
    return X @ q["a"][0] @ q["b"][1]


def save(path, theta=None, **changes):
    fields = {
        "base_fingerprint": BASE,
        "placement": [{"pattern": "q_proj", "rank": 2}],
        "normalisation": {"state_mean": [0.1, 0.2]},
        "config": {"seed": 3},
        "probe": Probe("x = linspace(-1, 1, 3)", run_probe),
    }
    directory.save(path, make_theta() if theta is None else theta, **(fields | changes))
    return path


def load(path, **changes):
    fields = {"base_fingerprint": BASE, "probe": run_probe, "expected_theta": jax.eval_shape(make_theta)}
    return directory.load(path, **(fields | changes))


def forge(path, change_tensors=None, **change_manifest):
    """Rewrites an adapter with every hash made right again, as a careless foreign tool would."""
    manifest = json.loads((path / "manifest.json").read_text())
    if change_tensors is not None:
        tensors = safetensors.flax.load_file(path / "adapter.safetensors")
        change_tensors(tensors)
        payload = safetensors.flax.save(tensors)
        (path / "adapter.safetensors").write_bytes(payload)
        manifest["files"]["adapter.safetensors"] = directory.hashlib.sha256(payload).hexdigest()
    manifest |= change_manifest
    del manifest["manifest_digest"]
    manifest["manifest_digest"] = directory._json_digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_round_trip_is_exact(tmp_path):
    adapter = load(save(tmp_path / "adapter"))
    assert trees.digest(adapter.theta) == trees.digest(make_theta())
    assert adapter.manifest["config"] == {"seed": 3}
    assert adapter.manifest["normalisation"]["statistics"] == {"state_mean": [0.1, 0.2]}
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_swap_there_and_back_is_exact(tmp_path):
    first, second = save(tmp_path / "a", make_theta(0)), save(tmp_path / "b", make_theta(1))
    one, other, again = load(first), load(second), load(first)
    assert trees.digest(one.theta) == trees.digest(again.theta) != trees.digest(other.theta)


def test_existing_directory_is_kept_unless_overwritten(tmp_path):
    path = save(tmp_path / "adapter", make_theta(0))
    with pytest.raises(AdapterError, match=r"exists.*overwrite=True"):
        save(path, make_theta(1))
    assert trees.digest(load(path).theta) == trees.digest(make_theta(0))
    save(path, make_theta(1), overwrite=True)
    assert trees.digest(load(path).theta) == trees.digest(make_theta(1))
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_a_checkout_that_nobody_installed_saves_what_it_has_learned(tmp_path, monkeypatch):
    version = importlib.metadata.version

    def installed(name):
        if name == "metalora_jax":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", installed)
    manifest = directory.read_manifest(save(tmp_path / "adapter"))
    assert manifest["versions"]["metalora_jax"] == __version__
    assert manifest["versions"]["jax"] == jax.__version__


def test_failed_save_leaves_nothing_behind(tmp_path, monkeypatch):
    def disk_full(directory):
        raise OSError("no space left")

    monkeypatch.setattr(files, "sync_tree", disk_full)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def truncate(path):
    file = path / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def flip_a_bit(path):
    file = path / "adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def edit_manifest(path):
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"seed": 3', '"seed": 4'))


Q_A = "expert/layers/q_proj.a"
DAMAGES = {
    "truncated tensors": (truncate, "truncated or altered"),
    "one bit": (flip_a_bit, "truncated or altered"),
    "no tensors": (lambda p: (p / "adapter.safetensors").unlink(), "adapter.safetensors is missing"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "is this an adapter directory"),
    "half a manifest": (lambda p: (p / "manifest.json").write_text('{"format": 1, "ba'), "truncated or not a"),
    "edited manifest": (edit_manifest, "altered after it was saved"),
    "unknown format": (lambda p: forge(p, format=99), "format version 99, this program reads 1"),
    "other base": (lambda p: forge(p, base_fingerprint="other"), "learned on base 'other', this policy is '"),
    "other base, by name": (
        lambda p: forge(p, base_fingerprint="other", config={"base": "runs/strong"}),
        r"learned on base 'other' \(runs/strong\), this policy is '",
    ),
    "missing key": (lambda p: forge(p, lambda t: t.pop(Q_A)), "missing 'expert/layers/q_proj/a'"),
    "extra key": (lambda p: forge(p, lambda t: t.update({"new.a": X})), "unknown 'new/a'"),
    "transposed": (lambda p: forge(p, lambda t: t.update({Q_A: t[Q_A].mT})), r"float32\[2, 2, 3\], expected float32"),
    "other dtype": (lambda p: forge(p, lambda t: t.update({Q_A: t[Q_A].astype("bfloat16")})), "is bfloat16"),
    "NaN": (lambda p: forge(p, lambda t: t.update({Q_A: t[Q_A].at[0, 0, 0].set(jnp.nan)})), f"'{Q_A}' holds NaN"),
    "other values": (lambda p: forge(p, lambda t: t.update({Q_A: 2 * t[Q_A]})), "does not hold the theta"),
    "nested": (lambda p: forge(p, lambda t: t.update({Q_A + ".x": X})), "below another tensor"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused(tmp_path, name):
    damage, message = DAMAGES[name]
    path = save(tmp_path / "adapter")
    damage(path)
    with pytest.raises(AdapterError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (lambda theta: run_probe(theta) * 1.01, "acts differently here"),
        (lambda theta: run_probe(theta) * jnp.nan, "acts differently here"),
        (lambda theta: run_probe(theta)[:-1], "gives shape"),
        (lambda theta: run_probe(make_theta(1)), "acts differently here"),  # theta never reached the policy
    ],
)
def test_another_answer_to_the_probe_is_refused(tmp_path, probe, message):
    path = save(tmp_path / "adapter")
    with pytest.raises(AdapterError, match=message):
        load(path, probe=probe)


def test_probe_allows_for_rounding_on_another_machine(tmp_path):
    load(save(tmp_path / "adapter"), probe=lambda theta: run_probe(theta) * (1 + 1e-6))


def test_missing_probe_has_to_be_accepted_knowingly(tmp_path):
    path = save(tmp_path / "adapter", probe=None)
    with pytest.raises(AdapterError, match="saved without a golden probe"):
        load(path)
    assert load(path, probe=None).manifest["probe"] is None


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({"q": {"a": jnp.full((2,), jnp.inf)}}, "'q.a' holds NaN or infinity"),
        ({"q.k": {"a": X}}, "without '.' in keys"),
        ({"q": {"a": X}, "empty": {}}, "none empty"),
        ({"q": (X, X)}, "nested dicts"),
    ],
)
def test_theta_that_would_not_come_back_is_refused(tmp_path, theta, message):
    with pytest.raises(AdapterError, match=message):
        save(tmp_path / "adapter", theta, probe=None)
    assert list(tmp_path.iterdir()) == []
