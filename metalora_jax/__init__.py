"""Few-shot adaptation of vision-language-action policies by meta-learned low-rank adapters.

    import metalora_jax as ml

The names below are the public face; each is imported when it is first used, so that importing the package is fast.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_FACE = {
    "Agent": "adaptation.agent:Agent",
    "AdaptOptions": "training.adapt:Options",
    "Dense": "adapters:Dense",
    "LoRA": "adapters:LoRA",
    "Recipe": "training.recipe:Recipe",
    "Rule": "adapters:Rule",
    "adapt": "training.adapt:adapt",
    "attach": "adaptation.adapter:fresh",
    "load_adapter": "adaptation.adapter:load",
    "load_base": "adaptation.base:load",
    "meta_train": "training.meta_train:meta_train",
    "open_demonstrations": "data.sources:open",
    "save_adapter": "adaptation.adapter:save",
    "save_base": "adaptation.base:save",
}
__all__ = ["__version__", *_FACE]


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(_FACE)}")
    module, attribute = _FACE[name].split(":")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_FACE})
