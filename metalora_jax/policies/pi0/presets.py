"""Placements of adapters on pi0 and pi0.5 that people use, by name."""

import re
from collections.abc import Iterable

from metalora_jax.adapters.lora import LoRA
from metalora_jax.adapters.placement import Placement, Rule

_ATTENTION = r"self_attn/(q|k|v|o)_proj"
_MLP = r"mlp/(gate|up|down)_proj"
_DECODER = rf"text/layers/({_ATTENTION}|{_MLP})|text/last/self_attn/(k|v)_proj"  # see `dead`
_EXPERT = rf"expert/layers/({_ATTENTION}|{_MLP})"
_HEADS = r"action_(in|out)_proj|(action_)?time_mlp_(in|out)"

NAMES = ("plan", "head", "decoder", "expert", "openpi", "all_linear")


def preset(name: str, *, rank: int | None = None, b_std: float = 0.0) -> Placement:
    """A placement for `adapters.attach`. All are LoRA on the attention and the MLPs of Gemma's layers, and the like.

    - "plan": decoder r = 4, action expert r = 8, action heads r = 8, dropout 0.05.
    - "head": the action heads alone, r = 8 (what ANIL adapts): the projections of actions and flow time.
    - "decoder": the decoder's layers alone, r = 4.
    - "expert": the action expert's layers alone, r = 8; the whole prefix then lies in the frozen front.
    - "openpi": the maps that openpi puts LoRA on, decoder r = 16, action expert r = 32. openpi has
      factors for each head, and trains the vision tower and the projections as well; that is not done here.
    - "all_linear": every linear map of all towers, r = 8; no stage is frozen then.

    Alpha is twice the rank; for "openpi" it is the rank. Maps that no output depends on, see `dead`, are left out.

    Args:
      name: one of `NAMES`.
      rank: of all LoRA, in place of the preset's own.
      b_std: spread of B's start, see `LoRA`; a meta-learned start wants one above 0.

    Raises:
      ValueError: if the name is unknown.
    """

    def rule(pattern: str, own_rank: int, alpha: float = 2.0, dropout: float = 0.0) -> Rule:
        r = rank or own_rank
        return Rule(pattern, LoRA(rank=r, alpha=alpha * r, dropout=dropout, b_std=b_std))

    everything = rf"vision/.*|connector|{_DECODER}|expert/.*|{_HEADS}|state_proj"
    placements: dict[str, Placement] = {
        "plan": (rule(_DECODER, 4, dropout=0.05), rule(_EXPERT, 8, dropout=0.05), rule(_HEADS, 8, dropout=0.05)),
        "head": (rule(_HEADS, 8),),
        "decoder": (rule(_DECODER, 4),),
        "expert": (rule(_EXPERT, 8),),
        "openpi": (rule(_DECODER, 16, alpha=1.0), rule(_EXPERT, 32, alpha=1.0)),
        "all_linear": (rule(everything, 8),),
    }
    if name not in placements:
        raise ValueError(f"no placement named {name!r}; choose one of {', '.join(NAMES)}")
    return placements[name]


def dead(paths: Iterable[str]) -> list[str]:
    """Those of the adapted maps that no output depends on: the decoder's last layer, but for its keys and values."""
    return [path for path in paths if re.fullmatch(r"text/last/(self_attn/(q|o)_proj|mlp/.*)", path)]
