"""What adapting ends by saying: losses before and after, and whether the policy is better than standing still."""

from collections.abc import Iterator

from metalora_jax.adaptation.adapter import Start
from metalora_jax.adaptation.base import Base
from metalora_jax.adaptation.prediction import among
from metalora_jax.adapters import count
from metalora_jax.data.support import Support
from metalora_jax.evaluation.offline import measure
from metalora_jax.training.adapt import HOLD_OUT, Adapted
from metalora_jax.training.validation import FEW, FEW_SAMPLES, MANY, SAMPLES
from metalora_jax.words import listed, plural


def lines(support: Support, start: Start, result: Adapted, steps: int, earlier: int, where: str) -> list[str]:
    """The table: a line each.

    Args:
      support: what was learned from.
      start: the adapter at the beginning.
      result: what came of it.
      steps: gradient steps.
      earlier: tasks that were replayed.
      where: directory of the adapter.
    """
    return [
        f"{name + ':' if name else '':16}{text}" for name, text in _rows(support, start, result, steps, earlier, where)
    ]


def _rows(
    support: Support, start: Start, result: Adapted, steps: int, earlier: int, where: str
) -> Iterator[tuple[str, str]]:
    learned, kept_back = result.frames
    maps = len(start.learner.theta)
    yield "task", support.demos[0].instruction
    yield "demonstrations", f"{len(support.demos)}, {plural(learned + kept_back, 'frame')}"
    yield "adapted", f"{count(result.theta).total} parameters on {plural(maps, 'map')}"
    if result.unmoved and start.head is None:
        yield "did not move", f"the parameters on {len(result.unmoved)} of {maps} maps: {listed(result.unmoved)}"
    taken = result.validation[-1].step if result.validation else steps  # fewer than asked for where patience ended it
    yield "steps", f"{taken} in {result.seconds:.2f} s, excluding compilation"
    yield "support loss", f"{_change(result.support_loss)} on the {plural(learned, 'frame')} used for adaptation"
    if result.held_out_loss is None:
        yield "held-out loss", f"no held-out frames: every {HOLD_OUT}th is kept back, and there are fewer"
    else:
        yield (
            "held-out loss",
            f"{_change(result.held_out_loss)} on {plural(kept_back, 'other')} of the same demonstrations",
        )
    if result.best is not None:
        before, best = result.validation[0], result.best
        change = f"{before.error:.3f} -> {best.error:.3f} standard deviations, loss {_change((before.loss, best.loss))}"
        yield "held-out error", f"{change}, after step {best.step} of {result.validation[-1].step}"
    if result.replay_loss is not None:
        yield "earlier tasks", f"{_change(result.replay_loss)}, {earlier} of them"
    yield "", f"(each measured on up to {result.judged} frames, spread over all)"
    yield "adapter", where


def against_standing_still(base: Base, result: Adapted, support: Support) -> str:
    """One line, in capitals where adapting was of no use."""
    most, samples = (FEW, FEW_SAMPLES) if base.large else (MANY, SAMPLES)
    settings = measure.Settings(stride=1, most=most, samples=samples)
    policies, learned = {"adapted": result.learner}, {support.demos[0].instruction: support.demos}
    if support.unseen:
        unseen = {task: support.unseen for task in learned}
        found, told = measure.evaluate(base, policies, unseen, learned, settings, loss=False), support.told
    else:
        frames, front = result.front
        [task] = frames.moments
        seen = among(frames, task, range(len(support.demos)), most=most)
        fronts = {result.learner.stage: front}
        found = measure.judged(base, policies, seen, fronts, support.demos, learned, settings, loss=False)
        told = "the demonstrations themselves, which flatters"
    return f"On {told}: {measure.verdict(found, 'adapted', 'the adapted policy')}"


def _change(losses: tuple[float, float]) -> str:
    return f"{losses[0]:.3f} -> {losses[1]:.3f}"
