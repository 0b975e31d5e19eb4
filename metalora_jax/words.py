"""How messages put things."""

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are; "" for none."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def plural(n: int, noun: str) -> str:
    """`1 step`, `3 steps`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
