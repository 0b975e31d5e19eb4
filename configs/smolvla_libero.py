"""The real SmolVLA on LIBERO's official demonstrations: new tasks from one demonstration. Needs a GPU of 40 GB, days.

    mkdir -p runs/libero/official && ln -s PATH_TO/libero_*/*.hdf5 runs/libero/official/
    XLA_PYTHON_CLIENT_PREALLOCATE=false metalora few_shot --config=configs/smolvla_libero.py \
        --config.convert.policy=lerobot/smolvla_base@COMMIT --workdir=runs/libero/smolvla

It makes the base of the policy, with the statistics of the training tasks, trains, adapts, runs episodes and reports.
Expected: at least 90 % of episodes solved after one demonstration and 50 gradient steps or fewer, where plain
fine-tuning is reported to take 300 to 500 steps of AdamW. Nobody has run it yet.

A split of libero_few_shot follows a colon (suite, across, composition); or `dry`, which runs every part once, and
whose figures mean nothing: with random weights of the full size it took 14 minutes of processor time (51 episodes of
one chunk each), instead of days on a GPU. It takes two demonstrations of four of libero_object's tasks, and scripted
ones will do:

    metalora collect --suite=libero_object --demos=2
    mkdir -p runs/libero && ln -s demos/clean runs/libero/official

The frozen front of every frame is kept on the disk, half a megabyte each, in the folder that METALORA_CACHE names;
METALORA_CACHE_GIB is how much of it the next run finds again.

What takes time without a GPU is the frozen front: 8 s of a core for each frame, once. `--config.test.frames=8`, and the
same for `validation` and each trained arm's `data`, takes so few frames of each demonstration instead of all.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.adapters.placement import to_json
from metalora_jax.policies.smolvla.presets import preset

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))

HEADS = r"action_(in_proj|out_proj|time_mlp_in|time_mlp_out)"
EXPERT = rf"expert/(self|cross)_layers/.*|{HEADS}"


def _data(tasks: tuple[str, ...]) -> dict:
    return common.data("runs/libero/official", tasks, 50, common.LIBERO_CAMERAS) | dict(frames=placeholder(int))


def _placement(name: str, b_std: float = 0.0) -> tuple[dict, ...]:
    return tuple(to_json(preset(name, b_std=b_std)))


def _training(method: str, held: common.Held, placement: tuple[dict, ...]) -> ConfigDict:
    """As on the nano base, in small batches and without replay: the public base has no LIBERO task to forget."""
    config = common.libero_training(method, held)
    config.placement = placement
    # A control's step has as many frames as support and query of the others together.
    config.batch.update(meta_batch=4, frames=4, query_frames=5 * 4 + 4 if method == "multitask" else 4, noise_draws=4)
    config.batch.update(retained_tasks=(), retained_frames=0, replay_frames=0)
    config.meta.update(inner_steps=5, micro_batch=1)
    config.symmetries.update(names=(), tasks=())
    return ConfigDict(config.to_dict() | dict(data=_data(held.train + held.more)))


def get_config(split: str = "suite") -> ConfigDict:
    """As libero_few_shot, with the plan's placement and longer curves."""
    held = common.split_named("suite" if split == "dry" else split)
    meta = _training("fomaml_rates", held, _placement("plan", b_std=0.02))
    meta.meta.update(optimizer="learned", inner_learning_rate=1.0)
    meta.outer.learning_rate_of_rates = 0.1
    full_expert = _training("multitask", held, common.dense(EXPERT))
    full_expert.outer.learning_rate = 1e-4
    config = ConfigDict()
    config.base = f"runs/libero/smolvla_{split}"
    config.convert = dict(policy="lerobot/smolvla_base", tokenizer=None)
    config.seed = 0
    config.meta_seeds = (0, 1)
    config.conditions = None
    config.arms = dict(
        meta=meta,
        control=_training("multitask", held, _placement("plan")),
        lora=dict(placement=_placement("plan")),
        head_lora=dict(placement=_placement("head")),
        full_head=dict(placement=common.dense(HEADS)),
        full_expert=full_expert,
    )
    config.search = dict(learned=(0.3, 1.0), sgd=(0.1, 1.0), adam=(1e-4, 3e-4, 1e-3, 3e-3))
    config.validation = _data(held.validation)
    config.test = _data(held.test)
    config.protocol = common.libero_protocol(
        held,
        steps=(0, 1, 5, 10, 50, 300),
        shots=(1, 3, 5),
        shots_steps=(10, 50),
        demonstration_draws=5,
        episodes=2,
        retention_steps=50,
        instruction_steps=50,
        frames=8,
        replay_frames=0,
        noise_draws=4,
        short=50,
    )
    # The platform is JAX's choice: a GPU, where there is one.
    config.control = common.libero_control(execute=10, image_size=256, platform=None)
    config.films = dict(tasks=held.test[::2], steps=50)
    config.workers = 1
    title = f"SmolVLA on new LIBERO tasks ({split}), one demonstration"
    config.report = common.report(title, 50, common.LIBERO_LABELS)
    return _dry(config) if split == "dry" else config


def _dry(config: ConfigDict) -> ConfigDict:
    """Every part once, as small as it goes; the frozen front takes frames four at a time."""
    few = config.arms.meta.data.tasks[:1]
    config.meta_seeds = (0,)
    for arm in ("meta", "control", "full_expert"):
        config.arms[arm].data.update(tasks=few, demos=2, frames=4)
        config.arms[arm].batch.update(meta_batch=1, frames=1, query_demos=1, query_frames=1, noise_draws=1)
        config.arms[arm].meta.inner_steps = 1
        config.arms[arm].outer.steps = 2  # the fewest that a schedule takes
    for part, count in (("validation", 1), ("test", 2)):  # a wrong instruction is another test task's
        config[part].update(tasks=config[part].tasks[:count], demos=2, frames=4)
    config.search = dict(learned=(1.0,), sgd=(), adam=(1e-3,))
    config.protocol.update(
        steps=(0, 1),
        shots=(1,),
        shots_steps=(1,),
        demonstration_draws=1,
        episodes=1,
        retention_steps=1,
        retention_tasks=few,
        instruction_steps=1,
        frames=1,
        noise_draws=1,
    )
    for suite in config.control.max_steps:
        config.control.max_steps[suite] = 10
    config.films.tasks = ()
    config.report.steps = 1
    return config
