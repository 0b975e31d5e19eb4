"""Known tasks on an arm with another calibration, a moved camera and other light, all hidden, from one demonstration.

    metalora collect --config=configs/so101_shifted_demos.py
    metalora few_shot --config=configs/few_shot_so101.py --workdir=runs/few_shot_so101

Adapters lie on connector, decoder, expert, and on readings and commands; on the expert alone they gain less
(experiments/results/few_shot_so101_placement). The base is the SO-101's (docs/so101.md), which looks: with noise for
pictures it solves 1 of 60. Robots that are tested on are in no training. The control is domain randomisation: an
adapter trained on all robots alike, then fine-tuned.

`ftm` and `fla` were made for moved cameras (Li et al. 2025, arXiv:2512.02902): a scale and a shift of the visual
tokens, and LoRA in the vision tower. The paper gives them 5,000 and 1,500 to 2,000 steps of AdamW at 5e-4, in batches
of 32; here they get what every arm gets, 1, 3, 10 and 100 steps of 32 frames at searched rates. A step of theirs runs
the whole policy, as nothing lies in the frozen front. With `:pi0` or `:pi05` behind the recipe's name the base is the
nano of that family, trained half as long; these two arms and full fine-tuning are left out.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.adapters.placement import to_json
from metalora_jax.policies.smolvla.presets import preset

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(family: str = "smolvla") -> ConfigDict:
    """One meta-seed; rates are chosen by success. `family` is the base's type."""

    def data(part: str, tasks: tuple[str, ...], robots: int, demos: int) -> dict:
        names = tuple(f"{task}@{robot}" for robot in range(robots) for task in tasks)
        return common.data(f"runs/so101/shifted/{part}", names, demos, common.SO101_CAMERAS)

    tasks = common.SO101_TASKS
    train = data("train", tasks, 64, 3)
    config = ConfigDict()
    config.base = f"experiments/results/{_BASES[family]}/base"
    config.seed = 0
    config.meta_seeds = (0,)
    config.conditions = None
    config.recorded = True
    meta, control = _UPDATES[family]
    config.arms = dict(
        meta=_training("maml_rates", train, meta),
        control=_training("multitask", train, control),
        lora=dict(placement=_placement()),
        identify_linear=dict(identify="linear"),
        identify_calibration=dict(identify="calibration"),
    )
    if family == "smolvla":
        config.arms.full_expert = dict(placement=common.dense(common.EXPERT))
        config.arms.ftm = dict(placement=tuple(to_json(preset("ftm"))))
        config.arms.fla = dict(placement=tuple(to_json(preset("fla"))))
    config.search = dict(learned=(0.3, 1.0, 3.0), sgd=(0.3, 1.0), adam=(0.001, 0.003, 0.01), ridge=(0.01, 0.03, 0.1))
    config.validation = data("validation", tasks[::3], 8, 6)
    config.test = data("test", tasks[::2], 16, 6)
    config.protocol = common.protocol(
        distribution="conditions",
        steps=(0, 1, 3, 10, 100),
        shots=(1, 3, 5),
        shots_steps=(3,),
        demonstration_draws=1,
        episodes=1,
        retention_steps=3,
        search_episodes=1,
        search_widenings=3,
        altered=("noise", "grey", "no_words", "other_words"),
        altered_steps=3,
    )
    config.control = dict(
        world="so101",
        execute=3,
        max_steps=dict(lift=40, place=60, push=40),
        ensemble=placeholder(float),
        simulator=dict(fps=10),
    )
    config.films = dict(tasks=(), steps=3)
    config.workers = 2
    config.report = common.report(
        "SO-101: another calibration, camera and light, one demonstration", 3, common.LABELS | _LABELS
    )
    return config


# Of the meta-learned arm and of the control, which takes as many processor hours.
_UPDATES = dict(smolvla=(1200, 2000), pi0=(600, 1000), pi05=(600, 1000))
_BASES = dict(smolvla="so101_nano", pi0="so101_nano_pi0", pi05="so101_nano_pi05")
_LABELS = dict(
    control="Domain-randomised LoRA (control)",
    full_expert="Full expert fine-tuning",
    ftm="Feature token modulation (FTM)",
    fla="LoRA in the vision tower (FLA)",
    identify_calibration="Identified calibration (no gradient)",
)


_SEEN = r"connector|text/layers/.*|text/last/self_attn/(k|v)_proj"  # what pictures pass on their way to the expert


def _placement(b_std: float = 0.0) -> tuple[dict, ...]:
    """LoRA where a moved camera can be made up for, scale and shift where readings enter and commands leave."""
    calibrated = dict(pattern=r"state_proj|action_(in|out)_proj", kind="scale_shift")
    return (*common.lora(rf"{_SEEN}|expert/.*|(action_)?time_.*", b_std), calibrated)


def _training(method: str, data: dict, updates: int) -> dict:
    config = common.training(method, data, None, updates)
    config.symmetries = None
    config.placement = _placement(0.0 if method == "multitask" else 0.02)
    config.batch.query_demos = 2  # there are three of each task and robot
    return config.to_dict()
