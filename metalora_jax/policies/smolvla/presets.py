"""Placements of adapters on SmolVLA that people use, by name."""

import re
from collections.abc import Iterable

from metalora_jax.adapters.lora import LoRA
from metalora_jax.adapters.placement import Placement, Rule
from metalora_jax.adapters.scale_shift import ScaleShift

_ATTENTION = r"self_attn/(q|k|v|o)_proj"
_MLP = r"mlp/(gate|up|down)_proj"
_EXPERT = r"expert/(self|cross)_layers"
_HEADS = r"action_(in_proj|out_proj|time_mlp_in|time_mlp_out)"

NAMES = ("plan", "head", "decoder", "expert", "lerobot", "all_linear", "ftm", "fla")


def preset(name: str, *, rank: int | None = None, b_std: float = 0.0, dead: bool = False) -> Placement:
    """A placement for `adapters.attach`.

    - "plan": decoder r = 4, action expert r = 8, action heads r = 8, dropout 0.05.
    - "head": the action heads alone, r = 8 (what ANIL adapts).
    - "decoder": the language model's layers alone, r = 4.
    - "expert": the action expert alone, r = 8; the whole prefix then lies in the frozen front.
    - "lerobot": what lerobot 0.4.4 adapts by default: q and v of the expert, the heads and state_proj, r = 16, alpha 8.
    - "all_linear": every linear map of all towers, r = 8.
    - "ftm": feature token modulation (Li et al. 2025, arXiv:2512.02902), a scale and a shift for each channel of the
      projected visual tokens, the same for all tokens and cameras. The connector has no bias to fold the shift into, so
      it cannot be fused.
    - "fla": feature linear adaptation, of the same paper: the layers of the vision tower alone, r = 16. The patch
      embedding is left out; it is a convolution in the published model.

    Alpha is twice the rank; for "fla" it is the rank, for "lerobot" 8. With "all_linear", "ftm" and "fla" no stage is
    frozen: every step runs the vision tower.

    Args:
      name: one of `NAMES`.
      rank: of all LoRA, in place of the preset's own; "ftm" has none.
      b_std: spread of B's start, see `LoRA`; a meta-learned start wants one above 0. "ftm" has no B, and needs none.
      dead: in the decoder's last layer only k_proj and v_proj act on the policy, and adapters on its other five maps
        never get a gradient (57,600 of the plan's 2,834,304 parameters). They are left out unless this is True.

    Raises:
      ValueError: if the name is unknown.
    """

    def rule(pattern: str, own_rank: int, alpha: float | None = None, dropout: float = 0.0) -> Rule:
        r = rank or own_rank
        return Rule(pattern, LoRA(rank=r, alpha=alpha or 2.0 * r, dropout=dropout, b_std=b_std))

    last = rf"text/last/({_ATTENTION}|{_MLP})" if dead else r"text/last/self_attn/(k|v)_proj"
    decoder = rf"text/layers/({_ATTENTION}|{_MLP})|{last}"
    expert = rf"{_EXPERT}/({_ATTENTION}|{_MLP})"
    placements: dict[str, Placement] = {
        "plan": (rule(decoder, 4, dropout=0.05), rule(expert, 8, dropout=0.05), rule(_HEADS, 8, dropout=0.05)),
        "head": (rule(_HEADS, 8),),
        "decoder": (rule(decoder, 4),),
        "expert": (rule(expert, 8),),
        "lerobot": (rule(rf"{_EXPERT}/self_attn/(q|v)_proj|{_HEADS}|state_proj", 16, alpha=8.0),),
        "all_linear": (rule(rf"(vision/.*|connector|{decoder}|{expert}|{_HEADS}|state_proj)", 8),),
        "ftm": (Rule("connector", ScaleShift()),),
        "fla": (rule(r"vision/layers/.*", 16, alpha=float(rank or 16)),),
    }
    if name not in placements:
        raise ValueError(f"no placement named {name!r}; choose one of {', '.join(NAMES)}")
    return placements[name]


def dead(paths: Iterable[str]) -> list[str]:
    """Those of the adapted maps that no output depends on: the decoder's last layer, but for its keys and values."""
    return [path for path in paths if re.fullmatch(r"text/last/(self_attn/(q|o)_proj|mlp/.*)", path)]
