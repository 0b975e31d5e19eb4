"""Meta-training end to end, on a random base and made-up demonstrations: no simulator."""

import copy
import json
import shutil

import jax
import numpy as np
import pytest

from metalora_jax import trees
from metalora_jax.adaptation import base as bases
from metalora_jax.adaptation.adapter import load as load_adapter
from metalora_jax.adapters.directory import AdapterError
from metalora_jax.data import libero_hdf5, sources
from metalora_jax.data.config import DataConfig, read_demos
from metalora_jax.data.sources.embodiment import Embodiment
from metalora_jax.training import meta_train as module
from metalora_jax.training import task_batches
from metalora_jax.training.meta_train import meta_train
from metalora_jax.training.metrics import read_metrics
from metalora_jax.training.recipe import OuterConfig, Recipe
from tests.tiny_base import EXPERT, INSTRUCTIONS, make_base, make_demos


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    bases.save(root / "base", make_base())
    for task in INSTRUCTIONS:
        libero_hdf5.write(root / f"{task}_demo.hdf5", make_demos(task), ("agentview",), task, {})
    return {
        "base": str(root / "base"),
        "seed": 0,
        "data": dict(directory=str(root), tasks=tuple(INSTRUCTIONS), demos=4, cameras=("agentview",)),
        "conditions": dict(yaw=(-3.0, 3.0)),
        "placement": (EXPERT,),
        "batch": dict(meta_batch=2, shots=1, frames=3, query_demos=2, query_frames=4, noise_draws=2),
        "meta": dict(
            method="fomaml",
            inner_steps=2,
            optimizer="learned",
            inner_learning_rate=0.1,
            max_norm=1.0,
            same_draws=False,
            micro_batch=None,
            head=None,
        ),
        "outer": dict(steps=3, learning_rate=1e-2, learning_rate_of_rates=0.1, max_norm=1.0),
        "checkpoint_every": 1,
    }


def read(config):
    return module.setting(Recipe.from_config(config))


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return meta_train(Recipe.from_config(config), workdir)


def test_adapter_holds_what_was_learned(config, trained):
    learn, rules, params, *_ = load_adapter(trained, make_base())
    assert set(params) == {"theta", "log_rates"}
    assert rules == Recipe.from_config(config).placement
    trees.check_same(params["theta"], learn.theta)
    moved = trees.global_norm(trees.sub(params["theta"], read(config).learner.theta))
    assert moved > 1e-3
    assert len({float(rate) for rate in jax.tree.leaves(params["log_rates"])}) > 1
    [record] = read_metrics(trained.parent / "metrics.jsonl")
    assert record["step"] == 3
    assert {"loss", "distance", "support_loss_first", "support_loss_last", "gradient_norm"} <= set(record)


def test_the_robot_is_recorded_and_held_against_the_base(config, trained, tmp_path, monkeypatch):
    assert load_adapter(trained, make_base()).embodiment.cameras == ("agentview",)
    said = []
    monkeypatch.setattr(module.logging, "warning", lambda text, *args: said.append(text % args))
    bases.save(tmp_path / "base", make_base()._replace(embodiment=Embodiment(("agentview", "wrist"), fps=30.0)))
    data = config["data"] | {"cameras": ()}
    with pytest.raises(ValueError, match=r"2 cameras \(agentview, wrist\)"):  # by default the base's, both
        read(config | {"base": str(tmp_path / "base"), "data": data})
    known = read(config | {"base": str(tmp_path / "base")})
    assert any("it never sees wrist, which it was trained with" in line for line in said)
    assert (known.embodiment.cameras, known.embodiment.fps) == (("agentview",), 30.0)


def test_finished_training_is_not_repeated(config, trained, monkeypatch):
    monkeypatch.setattr(module, "setting", None)
    assert meta_train(Recipe.from_config(config), trained.parent) == trained


def test_finished_training_goes_on_with_more_steps(config, trained, tmp_path):
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    longer = copy.deepcopy(config)
    longer["outer"]["steps"] = 5
    again = load_adapter(meta_train(Recipe.from_config(longer), tmp_path), make_base())
    assert trees.digest(again.meta_params) != trees.digest(load_adapter(trained, make_base()).meta_params)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [3, 5]
    with pytest.raises(ValueError, match=r"outer\.steps was 5, is 3"):
        meta_train(Recipe.from_config(config), tmp_path)


def test_demonstrations_are_counted_for_each_task_before_any_is_read(config, monkeypatch):
    data = config["data"]
    few = DataConfig.from_config(data | {"demos": {"reach": 1, "push": 3}})
    assert {task: len(demos) for task, demos in read_demos(few).items()} == {"reach": 1, "push": 3}
    with pytest.raises(ValueError, match=r"data\.demos and data\.tasks differ in 'push'"):
        DataConfig.from_config(data | {"demos": {"reach": 1}})
    monkeypatch.setattr(sources.Source, "demos", None)
    with pytest.raises(ValueError, match="9 demonstrations of 'push' requested, 4 found"):
        read_demos(DataConfig.from_config(data | {"demos": {"reach": 1, "push": 9}}))


def test_killed_and_resumed_gives_the_same_adapter(config, trained, tmp_path, monkeypatch):
    made, original = [], task_batches.task_batch

    def breaks_at_the_third(*arguments):
        made.append(1)
        if len(made) == 3:
            raise OSError("killed")
        return original(*arguments)

    monkeypatch.setattr(task_batches, "task_batch", breaks_at_the_third)
    with pytest.raises(OSError, match="killed"):
        meta_train(Recipe.from_config(config), tmp_path)
    resumed = meta_train(Recipe.from_config(config), tmp_path)
    assert len(made) == 4  # steps 1, 2, 3 and 3 again
    same = [load_adapter(path, make_base())[2] for path in (resumed, trained)]
    jax.tree.map(np.testing.assert_array_equal, *same)


def test_another_base_is_refused(trained):
    base = make_base()
    moved = base.statistics._replace(state_mean=base.statistics.state_mean + 1)
    with pytest.raises(AdapterError, match="base"):
        load_adapter(trained, bases.make(base.model, base.tokenizer, moved))


@pytest.mark.parametrize(
    ("section", "field", "complaint"),
    [
        ("data", "task", r"no field data\.task; known: directory, tasks, demos, cameras"),
        ("batch", "shot", r"no field batch\.shot; known: meta_batch"),
        ("conditions", "jaw", r"no field conditions\.jaw; known: yaw"),
    ],
)
def test_unknown_fields_are_named(config, section, field, complaint):
    wrong = copy.deepcopy(config)
    wrong[section][field] = 1
    with pytest.raises(ValueError, match=complaint):
        read(wrong)


def test_tasks_that_outweigh_the_others_are_named(config):
    frames = read(config).frames
    assert module.outweighing(frames) == []
    large = dict(frames.actions) | {"push": tuple(30 * actions for actions in frames.actions["push"])}
    [found] = module.outweighing(frames._replace(actions=large))
    assert found.startswith("push (")


@pytest.mark.parametrize(
    ("kept", "frames", "complaint"),
    [
        (("nowhere",), 4, r"batch\.retained_tasks: 'nowhere' is not in data\.tasks"),
        (("reach",), 0, r"batch\.retained_tasks names 1 tasks, retained_frames is 0: set both or neither"),
        ((), 4, r"batch\.retained_tasks names 0 tasks, retained_frames is 4"),
        (tuple(INSTRUCTIONS), 4, r"none is left to adapt to"),
    ],
)
def test_tasks_to_keep_are_checked(config, kept, frames, complaint):
    with pytest.raises(ValueError, match=complaint):
        read(config | {"batch": config["batch"] | dict(retained_tasks=kept, retained_frames=frames)})


def test_replayed_frames_come_from_tasks_to_keep(config):
    with pytest.raises(ValueError, match=r"replay_frames is 4: name the tasks to replay in batch\.retained"):
        read(config | {"batch": config["batch"] | dict(replay_frames=4)})


def test_missing_fields_are_named(config):
    wrong = copy.deepcopy(config)
    del wrong["batch"]["noise_draws"]
    with pytest.raises(ValueError, match=r"batch\.noise_draws is missing"):
        read(wrong)
    with pytest.raises(ValueError, match=r"outer\.max_norm is missing; the fields are: steps, learning_rate, "):
        OuterConfig.from_config({"steps": 1, "learning_rate": 0.1, "learning_rate_of_rates": None})


@pytest.mark.parametrize(("rate", "learned"), [(0.1, False), (None, True)])
def test_a_learning_rate_of_rates_belongs_to_learned_rates(config, rate, learned):
    meta = config["meta"] | {"optimizer": "learned" if learned else "sgd"}
    outer = config["outer"] | {"learning_rate_of_rates": rate}
    with pytest.raises(ValueError, match=r"outer\.learning_rate_of_rates belongs to learned inner rates"):
        Recipe.from_config(config | {"meta": meta, "outer": outer})


def test_a_recipe_says_everything_that_it_was_read_from(config):
    recipe = Recipe.from_config(config)
    written = json.loads(json.dumps(recipe.to_json()))
    assert Recipe.from_config(written) == recipe
    for section in ("base", "seed", "checkpoint_every"):
        assert written[section] == config[section]
    assert written["data"]["digest"] == ""  # what was left out has its default
    with pytest.raises(ValueError, match=r"no field config\.outers; known: base, seed"):
        Recipe.from_config(config | {"outers": {}})
    with pytest.raises(ValueError, match=r"batch is 3; it must have fields: meta_batch"):
        Recipe.from_config(config | {"batch": 3})


@pytest.mark.parametrize(
    ("section", "fields", "complaint"),
    [
        ("outer", dict(steps=1), r"outer\.steps is 1; a schedule takes at least two"),
        ("outer", dict(max_norm=0.0), r"outer\.max_norm is 0\.0; it must be positive"),
        ("meta", dict(inner_learning_rate=-0.1), r"meta\.inner_learning_rate is -0\.1"),
        ("batch", dict(meta_batch=0), r"batch\.meta_batch is 0"),
        ("conditions", dict(light=(0.5, 2.0)), r"conditions\.light changes what is seen"),
    ],
)
def test_numbers_and_shifts_without_meaning_are_refused(config, section, fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        Recipe.from_config(config | {section: config[section] | fields})


def test_a_mistyped_path_does_not_bind_the_work_directory(config, tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        meta_train(Recipe.from_config(config | {"base": str(tmp_path / "nowhere")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_placement_that_fits_nothing_is_refused_before_demonstrations_are_looked_for(config):
    nowhere = {"placement": (EXPERT | {"pattern": "experts/.*"},), "data": config["data"] | {"directory": "nowhere"}}
    with pytest.raises(ValueError, match=r"rule 'experts/\.\*' places nothing; near paths"):
        read(config | nowhere)


def test_a_bank_on_the_disk_trains_the_same_adapter(config, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(module.features, "IN_MEMORY", 0)
    monkeypatch.setenv("METALORA_CACHE", str(tmp_path / "cache"))
    again = meta_train(Recipe.from_config(config), tmp_path / "run")
    assert list((tmp_path / "cache" / "frozen_front").iterdir())
    params = [load_adapter(path, make_base())[2] for path in (trained, again)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *params)


def test_a_recipe_s_augmentation_reaches_what_is_learned_from(config, tmp_path):
    for task in INSTRUCTIONS:
        libero_hdf5.write(tmp_path / f"{task}_demo.hdf5", make_demos(task), ("topview",), task, {})
    recipe = config | {
        "data": config["data"] | {"directory": str(tmp_path), "cameras": ("topview",)},
        "augment": dict(variants=2),
        "paraphrases": {"reach": ("go to the goal",), "push": ()},
        "symmetries": dict(world="metaworld", names=("mirror",), tasks=("reach",)),
    }
    frames = read(recipe).frames
    assert frames.demos == {"reach": 4, "push": 4, "reach@mirror": 4}
    assert frames.variants == 2
    (row, *_), count = frames.first_row["reach@mirror"], len(frames.state)
    np.testing.assert_array_equal(frames.pictures(np.array([row]))[0], make_demos("reach")[0].images[0, :, :, ::-1])
    tokens, mask = make_base().encode_text("go to the goal")
    np.testing.assert_array_equal(frames.text(np.array([row + count]))[0][0], tokens)
    assert mask.any()


KEPT, *OTHERS = INSTRUCTIONS
KEEPING = dict(retained_tasks=(KEPT,), retained_frames=6)


@pytest.fixture(scope="module")
def keeping(config, tmp_path_factory):
    """A run that keeps out the last demonstration of every task, looks at it after every second step, and retains one.

    Its config, its adapter, and the batches that it drew.
    """
    left = config["data"] | dict(demos=3)
    known = config | {"data": left, "validation": dict(every=2, episodes=("last:1",))}
    known["batch"] = config["batch"] | KEEPING
    made, original = [], task_batches.task_batch

    def noted(*arguments):
        made.append(original(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_batches, "task_batch", noted)
        trained = meta_train(Recipe.from_config(known), tmp_path_factory.mktemp("keeping"))
    return known, trained, made


@pytest.fixture(scope="module")
def validated(keeping):
    return keeping[:2]


def test_kept_tasks_are_not_adapted_to_and_stand_in_every_query(keeping):
    known, _, made = keeping
    frames = read(known).frames

    def rows_of(tasks):
        return set(task_batches.all_rows(frames, tasks).rows)

    assert len(made) == 3
    for batch in made:
        own, added = np.split(batch.query.rows, [4], axis=1)
        assert added.shape == (2, 6)
        assert set(added.ravel()) <= rows_of([KEPT])
        assert {*own.ravel(), *batch.support.rows.ravel()} <= rows_of(OTHERS)


def test_held_out_episodes_never_reach_training(config, validated):
    known, _ = validated
    every, some = read(config).frames, read(known).frames
    for task, actions in every.actions.items():
        assert len(some.actions[task]) == len(actions) - 1
        assert all(np.array_equal(a, b) for a, b in zip(some.actions[task], actions[:-1], strict=True))
    assert len(some.images) == len(every.images) - sum(len(actions[-1]) for actions in every.actions.values())
    recipe = Recipe.from_config(known)
    cells = module.cells(recipe.data, recipe.validation, 1)
    for task, cell in cells.items():
        assert [np.array_equal(demo.actions, every.actions[task][-1]) for demo in cell.query] == [True]
        assert np.array_equal(cell.support[0].actions, every.actions[task][0])


def test_the_best_adapter_is_kept_beside_the_last(validated):
    _, trained = validated
    lines = [line for line in read_metrics(trained.parent / "metrics.jsonl") if "validation_error" in line]
    assert [line["step"] for line in lines] == [2, 3]
    assert all(line["validation_loss"] > 0 and line["validation_error_in_units"] > 0 for line in lines)
    manifest = json.loads((trained.parent / module.BEST / "manifest.json").read_text())
    best = min(lines, key=lambda line: line["validation_error"])
    assert manifest["config"]["validated"]["step"] == best["step"]
    assert manifest["config"]["validated"]["error"] == pytest.approx(best["validation_error"])
    assert load_adapter(trained.parent / module.BEST, make_base()).learner.theta


def test_looking_does_not_change_what_is_learned(config, validated, tmp_path):
    _, trained = validated
    dropped = copy.deepcopy(config)
    dropped["batch"] |= KEEPING
    dropped["data"] |= dict(demos=3, drop=tuple(f"{task}:3" for task in INSTRUCTIONS))
    plain = meta_train(Recipe.from_config(dropped), tmp_path / "plain")
    same = [load_adapter(path, make_base())[2] for path in (plain, trained)]
    jax.tree.map(np.testing.assert_array_equal, *same)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (dict(every=2), "validation holds nothing out"),
        (dict(every=0, episodes=("last:1",)), "validation.every is 0; it must be positive"),
        (dict(every=2, tasks=("reach",)), "validation.tasks: 'reach' is in data.tasks, too"),
    ],
)
def test_a_validation_without_sense_is_refused(config, validation, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_config(config | {"validation": validation})
