"""Few-shot adaptation of vision-language-action policies by meta-learned low-rank adapters."""

__version__ = "0.1.0"
