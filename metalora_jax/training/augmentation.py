"""How a recipe extends its demonstrations before training: paraphrases and symmetries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from metalora_jax.data import instructions, symmetry
from metalora_jax.data.augment import ImageAugmentation
from metalora_jax.data.symmetry import Symmetry
from metalora_jax.envs.symmetries import symmetries
from metalora_jax.fields import from_fields
from metalora_jax.types import Demo


class SymmetryConfig(NamedTuple):
    """Which tasks are also learned mirrored or turned; see `data.symmetry`."""

    world: str  # of the demonstrations
    names: Sequence[str] = ()
    tasks: Sequence[str] = ()  # whose objects stay what they are

    @classmethod
    def from_config(cls, fields: Mapping[str, Any]) -> "SymmetryConfig":
        """Reads the section `symmetries`; see `fields.from_fields`. Raises ValueError if only one list is set."""
        self = from_fields(cls, fields, "symmetries")
        if bool(self.names) != bool(self.tasks):
            raise ValueError("symmetries.names and symmetries.tasks belong together: set both, or neither")
        return self


def augmented(recipe: Mapping[str, Any], demos: Mapping[str, Sequence[Demo]]) -> dict[str, list[Demo]]:
    """The demonstrations that `recipe` trains on, made from those it has read.

    Args:
      recipe: with `data.cameras`, and optionally `paraphrases` (task -> texts) and `symmetries`.
      demos: each task's.

    Raises:
      ValueError: if a table, a task or a camera does not allow the requested changes.
    """
    out = {task: list(recorded) for task, recorded in demos.items()}
    if recipe.get("paraphrases"):
        out = instructions.paraphrased(out, instructions.checked(recipe["paraphrases"]))
    moves, tasks = _moves(recipe)
    return symmetry.enlarged(out, moves, tasks)


def variants(recipe: Mapping[str, Any]) -> ImageAugmentation | None:
    """How `recipe` varies its frames; None if it has no section `augment`."""
    return ImageAugmentation.from_config(recipe["augment"]) if "augment" in recipe else None


def other_texts(recipe: Mapping[str, Any], instruction: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    """What `recipe` tells a policy besides the instructions of its tasks, for `data.tasks.check_disjoint`."""
    table = instructions.checked(recipe.get("paraphrases", {}))
    moves, moved = _moves(recipe)
    out = {}
    for task in recipe["data"]["tasks"]:
        texts = table.get(task, ())
        said = (instruction(task), *texts) if task in moved else ()
        out[task] = (*texts, *(symmetry.say(move.name, text) for move in moves for text in said))
    return out


def _moves(recipe: Mapping[str, Any]) -> tuple[tuple[Symmetry, ...], Sequence[str]]:
    if "symmetries" not in recipe:
        return (), ()
    wanted = SymmetryConfig.from_config(recipe["symmetries"])
    return symmetries(wanted.world, recipe["data"]["cameras"], wanted.names), wanted.tasks
