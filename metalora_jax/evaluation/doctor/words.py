"""Do the instructions match the tasks?"""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from metalora_jax.adaptation.base import Base
from metalora_jax.data.libero_hdf5 import spoken
from metalora_jax.envs import libero_files
from metalora_jax.evaluation.doctor.findings import Finding, Outcome, together
from metalora_jax.evaluation.doctor.motion import counts
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.words import plural


def name_task(known: Mapping[str, str], name: str, instruction: str) -> str:
    """The task of a world that a file is named after, else the only one with the instruction; "" if there is none.

    Args:
      known: task -> instruction.
      name: of a file without its extension, or of a task in a data set.
      instruction: the instruction in the file.
    """
    if name in known:
        return name
    for words in (spoken(name), _plain(instruction)):
        if len(found := [task for task, said in known.items() if _plain(said) == words]) == 1:
            return found[0]
    return ""


def instructions(recordings: Sequence[Recording], known: Mapping[str, str], world: str) -> Outcome:
    """Is every demonstration's instruction exactly that of its task?"""
    found: list[Finding] = []
    for (_, task, written, told), own in _grouped(recordings).items():
        said = _trouble(task, written, told, known, world) if task else _unknown(written, known)
        if said:
            found += together([(r.file, r.name, *said) for r in own], counts(recordings))
    texts, tasks = {r.written for r in recordings}, {r.task for r in recordings} - {""}
    note = f"{plural(len(texts), 'instruction')} of {plural(len(tasks), 'task')}"
    return Outcome("instructions", tuple(found), note)


def lengths(recordings: Sequence[Recording], base: Base) -> list[Finding]:
    """Prompts that are too long for a base: those that it refuses, and those that it cuts.

    A prompt may hold the state: where the robot is the base's, that of every frame is tried.
    """
    found, reads = [], base.preprocessor
    for written in sorted({r.written for r in recordings}):
        fit = [r.state for r in recordings if r.written == written and r.state.shape[1] == reads.state_dim]
        states = reads.normalize_state(np.concatenate(fit) if fit else base.statistics.state_mean[None])
        try:
            reads.text(written, states)
        except ValueError as error:
            found.append(Finding(repr(written), str(error), "shorten it, or use a base with a higher token limit"))
            continue
        if (over := reads.cut(written, states)).any():
            where = f"{(over > 0).sum()} of {plural(len(over), 'frame')}"
            what = f"the prompt is {plural(int(over.max()), 'token')} too long and cut at the end, in {where}"
            found.append(
                Finding(repr(written), what, "shorten it, or make the base with a higher --max_tokens", "warning")
            )
    return found


def _trouble(task: str, written: str, told: str, known: Mapping[str, str], world: str) -> tuple[str, str] | None:
    wanted = known[task]
    accepted = {wanted}
    if world == "libero":  # its recorder writes the words of the task's own file, which differ for some tasks
        accepted |= {libero_files.language(task), libero_files.language(task).lower()}
    if written in accepted:
        return None
    remedy = f"write {wanted!r} into language_instruction of problem_info"
    if _plain(written) in {_plain(words) for words in accepted}:
        return f"the instruction {written!r} is spelled differently from {wanted!r}", remedy
    if others := [other for other, words in known.items() if _plain(words) == _plain(written)]:
        what = f"the instruction {written!r} is that of {others[0]}, not of {task}"
        return what, f"{remedy}, or name the file after {others[0]}"
    return None if told == wanted else (f"the instruction {written!r} is not that of {task}", remedy)


def _unknown(written: str, known: Mapping[str, str]) -> tuple[str, str] | None:
    if not known:
        return None
    same = [task for task, words in known.items() if _plain(words) == _plain(written)]
    if same:
        return f"{written!r} is ambiguous: {' or '.join(same[:4])}", "name the task with --task"
    near = difflib.get_close_matches(_plain(written), {_plain(words): None for words in known.values()}, 3, 0.4)
    hint = f"; near: {', '.join(near)}" if near else ""
    return f"no task of this world has instruction {written!r}{hint}", "set --task, or --world"


def _plain(words: str) -> str:
    return " ".join(words.replace("_", " ").strip("\"' .").lower().split())


def _grouped(recordings: Sequence[Recording]) -> dict[tuple[str, ...], list[Recording]]:
    grouped: dict[tuple[str, ...], list[Recording]] = {}
    for r in recordings:
        grouped.setdefault((r.file, r.task, r.written, r.told), []).append(r)
    return grouped
