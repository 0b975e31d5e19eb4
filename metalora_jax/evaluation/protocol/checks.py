"""Checks of a comparison's config before anything is computed: disjoint splits, and no setting without effect."""

from collections import Counter
from collections.abc import Mapping, Sequence

from absl import logging

from metalora_jax import trees
from metalora_jax.data.config import DataConfig, read_demos, unpictured
from metalora_jax.data.tasks import Splits, check_disjoint
from metalora_jax.data.text import same
from metalora_jax.envs.conditions import Condition
from metalora_jax.envs.world import World, played
from metalora_jax.evaluation.protocol.comparison import Comparison
from metalora_jax.evaluation.protocol.few_shot import Protocol
from metalora_jax.evaluation.protocol.recorded import conditions
from metalora_jax.machine.progress import progress
from metalora_jax.training.augmentation import other_texts


def check_splits(comparison: Comparison, where: World) -> None:
    """Checks that all tasks are known and, for new tasks, that none is both trained and tested on.

    Tasks are compared by name, texts, and facts in protocol.held_out. Earlier tasks, on which retention is measured,
    count as trained on. Known tasks under new conditions share their tasks on purpose; there the conditions are held
    out.

    Raises:
      ValueError: if not, or if the world does not know such a fact about its tasks.
    """
    protocol, trained = comparison.protocol, comparison.trained.values()
    learned = {task for recipe in trained for task in recipe.data.tasks}
    learned |= {*protocol.retention_tasks, *(comparison.replay.tasks if comparison.replay else ())}
    if protocol.distribution == "tasks" and not learned:
        raise ValueError(
            "nothing says which tasks were learned from, so that none can be held out: name those of the base in "
            "protocol.retention_tasks, or have an arm that is trained, with arms.NAME.data.tasks"
        )
    splits = Splits(tuple(sorted(learned)), tuple(comparison.validation.tasks), tuple(comparison.test.tasks))
    instructions = {task: where.instruction(played(task)) for tasks in splits for task in tasks}
    if protocol.distribution == "tasks":
        others: dict[str, tuple[str, ...]] = {}
        for recipe in trained:
            words = recipe.data.tasks, recipe.data.cameras, recipe.symmetries, recipe.paraphrases
            for task, texts in other_texts(*words, where.instruction).items():
                others[task] = others.get(task, ()) + texts
        labels = {task: _labels(where.facts(played(task)), protocol) for task in instructions}
        check_disjoint(splits, instructions, others, labels)


def check_outcomes(errors: Sequence[str | None], log: str) -> None:
    """Says how many episodes ended by an error, which counts as a failure, and refuses to go on where all did.

    Args:
      errors: of each episode that ran; None where it ended in its own time.
      log: where they are recorded.

    Raises:
      RuntimeError: every episode ended by an error: nothing was measured.
    """
    raised = [error for error in errors if error is not None]
    if not raised:
        return
    commonest, count = Counter(raised).most_common(1)[0]
    if len(raised) < len(errors):
        logging.warning(
            "%d of %d episodes ended by an error and count as failures; %d of them by: %s",
            *(len(raised), len(errors), count, commonest),
        )
        return
    raise RuntimeError(
        f"every one of {len(errors)} episodes ended by an error, {count} of them by: {commonest}. Nothing was "
        f"measured: mend it, and run them again in a new work directory ({log} holds them as failures)"
    )


def check_recorded(comparison: Comparison) -> None:
    """Checks that no robot that is tested on was learned from, or used to choose rates.

    Raises:
      ValueError: one was; or a file does not say what it was recorded under, see `recorded.conditions`.
    """
    sections = [("test", comparison.test), ("validation", comparison.validation)]
    sections += [(f"arms.{name}.data", recipe.data) for name, recipe in comparison.trained.items()]
    owners: dict[Condition, str] = {}
    for section, part in sections:
        for condition in set(conditions(part).values()) - {Condition()}:
            owner = owners.setdefault(condition, section)
            if owner != section and not (owner.startswith("arms.") and section.startswith("arms.")):
                raise ValueError(f"{owner} and {section} share a robot, {condition.to_json()}: record on others")


def check_demos(parts: Sequence[DataConfig]) -> None:
    """Reads all demonstrations except their pictures, so that missing ones are reported before training.

    Raises:
      ValueError: see `data.sources`.
    """
    for part in progress(unpictured(parts), description="demonstrations, without pictures"):
        read_demos(part, pictures=False)


def check_apart(comparison: Comparison) -> None:
    """Checks that no demonstration is both tested on and learned from, or used to choose rates, whatever its file.

    Demonstrations are compared by content: instruction, state and actions. Known tasks under new conditions share
    their tasks on purpose, and demonstrations no more than new tasks do.

    Raises:
      ValueError: if one is; the message names its task and both sections.
    """
    sections = [("test", comparison.test), ("validation", comparison.validation)]
    sections += [(f"arms.{name}.data", recipe.data) for name, recipe in comparison.trained.items()]
    owners: dict[str, tuple[str, int]] = {}
    read: list[DataConfig] = []  # arms share their demonstrations
    for section, part in sections:
        [plain] = unpictured([part])
        if plain in read:
            continue
        read.append(plain)
        for task, recorded in read_demos(plain, pictures=False).items():
            for number, demo in enumerate(recorded):
                key = demo.instruction + trees.digest({"state": demo.state, "actions": demo.actions})
                owner, first = owners.setdefault(key, (section, number))
                if owner != section and not (owner.startswith("arms.") and section.startswith("arms.")):
                    raise ValueError(
                        f"demonstration {number} of {task} in {section} is demonstration {first} of {owner}: what is "
                        "tested on must be used for nothing else, nor rates be chosen on what is trained on; record "
                        "others, or choose other tasks or episodes"
                    )


def check_replay(comparison: Comparison) -> None:
    """Checks that a section `replay` and protocol.replay_frames are set together.

    Raises:
      ValueError: if not.
    """
    frames = comparison.protocol.replay_frames
    if (comparison.replay is not None) != (frames > 0):
        there = "no" if comparison.replay is None else "a"
        raise ValueError(
            f"protocol.replay_frames is {frames}, and there is {there} section `replay` with demonstrations of earlier "
            "tasks: set both or neither"
        )


def check_retention(protocol: Protocol) -> None:
    """Checks that earlier tasks are named if retention is to be measured on new tasks.

    Raises:
      ValueError: if not.
    """
    if protocol.distribution == "tasks" and protocol.retention_steps and not protocol.retention_tasks:
        raise ValueError(
            "protocol.retention_steps measures what an adapter for a new task costs on earlier tasks: name some in "
            "protocol.retention_tasks, or set retention_steps to 0"
        )


def check_gate(comparison: Comparison, where: World) -> None:
    """Checks that instructions tell earlier tasks from those that are adapted to, if adapters are gated by them.

    Raises:
      ValueError: if one does not; the message names both tasks.
    """
    protocol = comparison.protocol
    if not protocol.retention_gated:
        return
    new = {same(where.instruction(played(task))): task for task in comparison.test.tasks}
    for task in protocol.retention_tasks:
        if (text := where.instruction(task)) and same(text) in new:
            raise ValueError(
                f"protocol.retention_gated: the instruction {text!r} is of the earlier task {task} and of "
                f"{new[same(text)]}, which is adapted to, and cannot tell them apart: take {task} out of "
                "protocol.retention_tasks, or leave retention_gated out"
            )


def _labels(facts: Mapping[str, Sequence[str]], protocol: Protocol) -> list[str]:
    if unknown := set(protocol.held_out) - set(facts):
        known = ", ".join(facts) or "none"
        raise ValueError(f"protocol.held_out: no fact {min(unknown)!r} about this world's tasks; known: {known}")
    return [f"{fact} {text!r}" for fact in protocol.held_out for text in facts[fact]]
