"""Meta-learns adapters on pi0 at its real size, from Meta-World demonstrations seen by two cameras.

    metalora convert --policy=checkpoints/pi0_base --tokenizer=paligemma_tokenizer.model --param_dtype=bfloat16 \\
        --demos='runs/demos/clean/*.hdf5' --cameras=agentview,topview --output=runs/pi0
    metalora meta_train --config=configs/pi0.py --workdir=runs/pi0_meta
    metalora adapt --base=runs/pi0 --adapter=runs/pi0_meta/adapter --demos=my_task_demo.hdf5 --output=runs/my_task

A placement follows a colon, `--config=configs/pi0.py:expert`: plan (the default; attention and MLPs of both Gemmas, of
rank 4 in the decoder and 8 in the action expert, and the action heads), head, decoder, expert, openpi, all_linear.
Without meta-training: `metalora adapt --base=runs/pi0 --placement=plan --optimizer=adam`.

Nobody has run it on the public weights. By arithmetic, which tests/configs/test_pi0_recipes.py repeats: the weights
take 6.5 GB in bfloat16, the adapters of `plan` have 8.2 million parameters. Of two cameras a frame takes 0.44 TFLOP in
the vision tower, once, 2.1 in the decoder and 0.037 for each velocity; gradients come on top.
Under `expert`, `head` and the like the decoder runs once for each frame, too.
`--config.data.frames=8` takes so few frames of each demonstration instead of all.
"""

from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from metalora_jax.adapters.placement import to_json
from metalora_jax.policies.pi0.presets import preset

common = SimpleNamespace(**run_path(str(Path(__file__).with_name("common.py"))))


def get_config(placement: str = "plan") -> ConfigDict:
    """FOMAML with learned rates, one task at a time."""
    demos = common.data("runs/demos/clean", common.TASKS, 15, ("agentview", "topview"))
    config = common.training("fomaml_rates", demos | dict(frames=placeholder(int)), dict(yaw=common.YAW))
    config.base = "runs/pi0"
    config.placement = tuple(to_json(preset(placement, b_std=0.02)))
    config.batch.update(meta_batch=4, frames=4, query_frames=4, noise_draws=4)
    config.meta.inner_steps = 5
    config.meta.micro_batch = 1
    return config
