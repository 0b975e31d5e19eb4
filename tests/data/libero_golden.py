"""The facts of LIBERO's 130 tasks, as tests/data/test_libero_tasks.py checks them against an installed LIBERO."""

import functools
import json
from pathlib import Path

from metalora_jax.data.libero_tasks import LiberoTask, Relation

FILE = Path(__file__).parents[1] / "golden" / "libero_tasks.json"


@functools.cache
def libero_tasks() -> dict[str, LiberoTask]:
    """Every task by name, without an installed LIBERO."""
    rows = json.loads(FILE.read_text())
    made = [LiberoTask(*row[:4], tuple(Relation(*goal) for goal in row[4]), tuple(row[5])) for row in rows]
    return {task.name: task for task in made}
