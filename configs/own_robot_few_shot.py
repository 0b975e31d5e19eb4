"""Is meta-learning worth it on a robot of one's own? Adapting to new tasks of a LeRobot dataset, without a simulator.

    metalora few_shot --config=own_robot_few_shot:my_dataset --config.base=runs/base --workdir=runs/few_shot

The dataset follows the colon: a directory, or a name on the hub with a revision; after another colon cameras, in the
base's order, where not all are meant: `aloha_dataset:cam_high,cam_left_wrist`. Of its tasks, a fifth (at least one, the
last) is tested on, another fifth chooses inner rates, and the rest is learned from; fewer than three are refused. A
task takes four demonstrations: one to adapt to, and others that are predicted.

The base's statistics should not know the tasks that are tested on: `metalora convert --demos` on the others alone.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.adapters.placement import to_json
from metalora_jax.data import sources
from metalora_jax.policies.smolvla.presets import preset
from metalora_jax.words import plural

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def _placement(name: str, b_std: float = 0.0) -> tuple[dict, ...]:
    return tuple(to_json(preset(name, b_std=b_std)))


def _training(method: str, data: dict, b_std: float) -> ConfigDict:
    """As own_robot; a control's step has as many frames as support and query of the others together."""
    config = common.training(method, data, None, steps=300)
    config.placement = _placement("plan", b_std)
    config.batch.update(meta_batch=4, frames=4, query_frames=5 * 4 + 4 if method == "multitask" else 4, noise_draws=4)
    config.meta.update(inner_steps=5, micro_batch=1)
    config.symmetries = None
    return config  # not as a dict, in which fields that are None could not be set


def get_config(dataset: str = "") -> ConfigDict:
    """Meta-learned LoRA, the multi-task control, LoRA from scratch and the heads alone, judged by action error."""
    if not dataset:
        raise ValueError("name the dataset after a colon: --config=own_robot_few_shot:my_dataset")
    directory, _, named = dataset.partition(":")
    tasks = tuple(sources.open(directory, ()).names())
    if len(tasks) < 3:
        raise ValueError(
            f"{directory} has {plural(len(tasks), 'task')}, and three are the least: one to learn, one to choose rates "
            "by, one to test on"
        )
    apart = max(1, len(tasks) // 5)
    cameras = tuple(named.split(",")) if named else tuple(sources.cameras_of(directory))

    def data(chosen: tuple[str, ...]) -> dict:
        return common.data(directory, chosen, placeholder(int), cameras) | dict(frames=placeholder(int))

    learned = data(tasks[: -2 * apart])
    config = ConfigDict()
    config.base = "runs/base"
    config.seed = 0
    config.meta_seeds = (0, 1)
    config.conditions = None
    config.arms = dict(
        meta=_training("fomaml_rates", learned, 0.02),
        control=_training("multitask", learned, 0.0),
        lora=dict(placement=_placement("plan")),
        head_lora=dict(placement=_placement("head")),
    )
    config.search = dict(learned=(0.3, 1.0), sgd=(0.1, 1.0), adam=(3e-4, 1e-3, 3e-3))
    config.validation = data(tasks[-2 * apart : -apart])
    config.test = data(tasks[-apart:])
    config.protocol = common.protocol(
        distribution="tasks",
        steps=(0, 5, 20, 50),
        shots=(1,),
        shots_steps=(),
        demonstration_draws=2,
        episodes=2,
        retention_steps=0,
        instruction_steps=20 if apart > 1 else 0,  # told another test task's instruction
        frames=8,
        noise_draws=4,
    )
    config.control = None
    config.offline = dict(stride=5, samples=4)
    config.films = dict(tasks=(), steps=0)
    config.workers = 1
    config.report = common.report("New tasks of one robot, one demonstration", 20, common.LABELS)
    return config
