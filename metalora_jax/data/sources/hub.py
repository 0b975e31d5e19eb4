"""Datasets on the hub: fetched into its local cache at a revision, or found there."""

import re
from pathlib import Path

from absl import logging

from metalora_jax.data.demos import DemoError

WANTED = ("meta/*", "data/*", "videos/*")  # of a LeRobot dataset; * goes into folders, too
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def local(path_or_id: str | Path) -> Path:
    """The path itself, or where the hub's local cache holds a dataset, fetched where there is a network.

    Args:
      path_or_id: a path, or a dataset's name on the hub, "owner/name" or "owner/name@revision": a commit, tag or
        branch. What is there as a path is one, and so is a name without a revision that begins with a folder there.

    Raises:
      DemoError: the hub does not provide it.
    """
    path, named = Path(path_or_id), _NAME.fullmatch(str(path_or_id))
    if named is None or path.exists() or (named[2] is None and path.parent.is_dir()):
        return path
    from huggingface_hub import snapshot_download

    from metalora_jax.machine.hub import FAILURES, short

    name, revision = named[1], named[2]
    try:
        logging.info("fetching %s from the hub, or its local cache", path_or_id)
        found = Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=list(WANTED)))
    except FAILURES as error:
        raise DemoError(
            f"{path_or_id} is no path, nor available from the hub ({short(error)}). Without a network: put the folders "
            f"meta, data and videos of the dataset {name}{f' at {revision}' * bool(revision)} into a directory, and "
            "name that"
        ) from error
    logging.info("%s is at commit %s, in %s", name, found.name, found)
    return found
