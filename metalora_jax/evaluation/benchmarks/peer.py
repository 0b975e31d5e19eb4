"""The timed pieces of work beside lerobot's SmolVLA with peft, which does the same ones."""

from collections.abc import Callable
from typing import Any

from metalora_jax.evaluation.benchmarks.benchmark import TASKS, Work, timed
from metalora_jax.machine.memory import give_back_memory

_ATTENTION_AND_MLP = r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
_EXPERT = rf"model\.vlm_with_expert\.lm_expert\.layers\.\d+\.{_ATTENTION_AND_MLP}"
_TEXT = rf"model\.vlm_with_expert\.vlm\.model\.text_model\.layers\.\d+\.{_ATTENTION_AND_MLP}"
_HEADS = r"model\.action_(in_proj|out_proj|time_mlp_in|time_mlp_out)"
PEFT = {  # preset of the family -> the same placement for peft
    "plan": {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": f"({_TEXT}|{_EXPERT}|{_HEADS})",
        "rank_pattern": {r".*text_model.*": 4},
        "alpha_pattern": {r".*text_model.*": 8},
    },
    "expert": {"r": 8, "lora_alpha": 16, "target_modules": _EXPERT},
}


def alternate(
    placement: str,
    work: Work,
    peer: Any | None,
    record: Callable[..., None],
    repeats: int,
    meta_repeats: int,
    peer_tasks: int,
) -> None:
    """Times all pieces of work of a placement, alternating with the peer.

    Args:
      placement: its name, for the records.
      work, peer: the two sides; None measures ours alone.
      record: called with placement, side, name of the work, and seconds.
      repeats: of each; `meta_repeats` of the meta-step.
      peer_tasks: of the peer's meta-step; its time is scaled up to TASKS (its tasks are one loop, each alike).
    """

    def ours(name: str) -> None:
        record(placement, "ours", name, timed(getattr(work, f"run_{name}"))._asdict())

    def theirs(name: str, label: str | None = None) -> None:
        if peer is not None:
            record(placement, "peer", label or name, peer.timed(work=name))

    for name in ("step", "step_cold"):  # compiles, and touches all memory
        getattr(work, f"run_{name}")()
    if peer is not None:
        peer.timed(work="step")
    give_back_memory()  # compilation leaves hundreds of megabytes behind
    work.run_step()
    for _ in range(repeats):
        ours("step")
        theirs("step")
        ours("step_cold")
    if placement == "expert":
        return
    work.run_sample()
    for _ in range(repeats):
        ours("sample")
        theirs("sample")
    if meta_repeats:
        work.compile_meta_step()
        give_back_memory()
    for _ in range(meta_repeats):
        ours("meta_step")
        if peer is not None:
            part, scale = peer.timed(work="meta_step", tasks=peer_tasks), TASKS / peer_tasks
            whole = part | {"cpu": scale * part["cpu"], "wall": scale * part["wall"], "scaled": scale}
            record(placement, "peer", "meta_step", whole)
        ours("meta_step_cold")
    if peer is not None:
        peer.cache_vision()
        peer.timed(work="step")
    for _ in range(repeats):
        theirs("step", "step_cached_vision")
