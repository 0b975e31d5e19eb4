"""Policies on the hub: fetched into its local cache, or found there."""

import re
from pathlib import Path

from absl import logging
from huggingface_hub import snapshot_download

from metalora_jax.machine.hub import FAILURES, short

TOKENIZER = "tokenizer.json"
WANTED = ("config.json", "model.safetensors", "policy_*", TOKENIZER, "README.md")


_NAME = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([0-9a-f]{40}))?")


def name_and_commit(hub_id: str) -> tuple[str, str | None]:
    """Of "owner/name@<40 hex digits>", or without a commit; anything else is a name as it is."""
    named = _NAME.fullmatch(hub_id)
    return (named[1], named[2]) if named else (hub_id, None)


def local_directory(path_or_hub_id: str | Path) -> Path:
    """The directory itself, or the hub's files in its local cache, fetched where there is a network.

    Args:
      path_or_hub_id: a directory, or a name on the hub, at a commit where one follows: "owner/name@<40 hex digits>".

    Raises:
      ValueError: if there is no such directory, and the hub does not provide it either.
    """
    path = Path(path_or_hub_id)
    if path.is_dir():
        return path
    if not (named := _NAME.fullmatch(str(path_or_hub_id))):
        raise ValueError(f"{path} is neither a directory nor a name on the hub (owner/name or owner/name@commit)")
    try:
        logging.info("fetching %s from the hub, or its local cache", path_or_hub_id)
        return Path(snapshot_download(named[1], revision=named[2], allow_patterns=list(WANTED)))
    except FAILURES as error:
        raise ValueError(
            f"{path_or_hub_id} is not a directory, nor available from the hub ({short(error)}). Without a network: "
            f"put {', '.join(WANTED)} of {path_or_hub_id} into a directory and pass it"
        ) from error
