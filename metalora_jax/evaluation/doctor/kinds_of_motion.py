"""Do the demonstrations of one instruction show one motion?"""

from collections.abc import Sequence

from metalora_jax.data import motions
from metalora_jax.data.normalize import compute
from metalora_jax.evaluation.doctor.findings import Finding, Outcome
from metalora_jax.evaluation.doctor.recordings import Recording
from metalora_jax.types import Demo
from metalora_jax.words import plural

_REMEDY = "look at the episodes side by side; give each task its own instruction, or drop those of the other task"


def check(found: Sequence[Recording]) -> Outcome:
    """Two tasks told alike leave a policy with their mean: see `data.motions.unlike`."""
    told: dict[tuple[str, str], list[Recording]] = {}
    for one in found:
        told.setdefault((one.file, one.told), []).append(one)
    findings = []
    for (file, instruction), group in told.items():
        if len({(one.state.shape[1], one.actions.shape[1]) for one in group}) > 1:
            continue  # other checks name the widths
        demos = [Demo(instruction, one.first[None], one.state, one.actions) for one in group]
        for said in motions.unlike(demos, compute(demos)):
            findings.append(Finding(file, said, _REMEDY, "warning", file, task=instruction))
    return Outcome("one motion", tuple(findings), plural(len(told), "instruction"))
