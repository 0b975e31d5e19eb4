"""How a recipe extends its demonstrations before training: paraphrases, symmetries and other deployments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from metalora_jax.data import instructions, symmetry
from metalora_jax.data.deployments import DeploymentRange, deployed
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


def augmented(
    demos: Mapping[str, Sequence[Demo]],
    cameras: Sequence[str],
    wanted: SymmetryConfig | None,
    paraphrases: instructions.Table,
    deployments: DeploymentRange | None = None,
) -> dict[str, list[Demo]]:
    """The demonstrations that are trained on, made from those that were read.

    Args:
      demos: each task's.
      cameras: of the demonstrations.
      wanted: symmetries; None for none.
      paraphrases: task -> texts; {} for none.
      deployments: on which each task, and each of its mirror images, is learned too; None for none.

    Raises:
      ValueError: if a table, a task or a camera does not allow the requested changes.
    """
    out = {task: list(recorded) for task, recorded in demos.items()}
    if paraphrases:
        out = instructions.paraphrased(out, paraphrases)
    moves, tasks = _moves(cameras, wanted)
    out = symmetry.enlarged(out, moves, tasks)
    return out if deployments is None else deployed(out, deployments)


def other_texts(
    tasks: Sequence[str],
    cameras: Sequence[str],
    wanted: SymmetryConfig | None,
    paraphrases: instructions.Table,
    instruction: Callable[[str], str],
) -> dict[str, tuple[str, ...]]:
    """What a policy is told besides the instructions of its tasks, for `data.tasks.check_disjoint`."""
    moves, moved = _moves(cameras, wanted)
    out = {}
    for task in tasks:
        texts = paraphrases.get(task, ())
        said = (instruction(task), *texts) if task in moved else ()
        out[task] = (*texts, *(symmetry.say(move.name, text) for move in moves for text in said))
    return out


def _moves(cameras: Sequence[str], wanted: SymmetryConfig | None) -> tuple[tuple[Symmetry, ...], Sequence[str]]:
    if wanted is None:
        return (), ()
    return symmetries(wanted.world, cameras, wanted.names), wanted.tasks
