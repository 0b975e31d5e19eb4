"""The Hugging Face hub: what it answers where it cannot be asked."""

from huggingface_hub.errors import EntryNotFoundError, HTTPError

FAILURES = (OSError, HTTPError, EntryNotFoundError)  # no network, no such name, no permission, not in the local cache


def short(error: Exception) -> str:
    """An exception's type and the first line of its message."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
