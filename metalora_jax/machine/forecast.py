"""How long a command of several stages will take: measured once, refined by the pace of the run."""

import dataclasses
import math

PRIOR = 0.1  # of the whole: the measured pace counts for as much as that much work of this run's own


@dataclasses.dataclass
class Forecast:
    """How far along a command of several stages is, and how long the rest will take at this run's pace.

    Attributes:
      seconds: stage -> what it took where it was measured [s], in the order in which they run. A stage is what one bar
        counts, or several side by side, and its name is how the bar's description begins.
      done: of those, how many this run has done by itself [s]; what a resumed run finds done tells nothing of its pace.
      took: what they took here [s].
    """

    seconds: dict[str, float]
    done: float = 0.0
    took: float = 0.0

    def stage(self, description: str) -> str | None:
        """The stage that a bar belongs to."""
        return next((name for name in self.seconds if description.startswith(name)), None)

    def share(self, *stages: str) -> float:
        """Of stages in the whole, in [0, 1]."""
        return sum(self.seconds[stage] for stage in stages) / sum(self.seconds.values())

    def at(self, stage: str, fraction: float = 0.0, moved: float = 0.0, elapsed: float = 0.0) -> tuple[float, float]:
        """The state of the whole command while a stage runs.

        The rest of the running stage is estimated from its own rate, blended with the measurement: the more of the
        stage this run has done itself, the less the measurement counts.

        Args:
          stage: the running one.
          fraction: of it that is done, in [0, 1].
          moved: of it that this run has done itself, in [0, fraction].
          elapsed: since it began [s].

        Returns:
          The share of the whole that is done, in [0, 1], and the time that is left of it [s].
        """
        names = list(self.seconds)
        before, after = names[: names.index(stage)], names[names.index(stage) + 1 :]
        own = self.seconds[stage]
        prior = PRIOR * sum(self.seconds.values())
        lately = elapsed if moved else 0.0  # until it moves, its clock says nothing of its pace
        pace = (self.took + lately + prior) / (self.done + moved * own + prior)
        measured = own * (1 - fraction) * pace
        seen = elapsed / moved * (1 - fraction) if moved else measured
        left = moved * seen + (1 - moved) * measured + pace * sum(self.seconds[name] for name in after)
        return self.share(*before) + fraction * self.share(stage), left

    def end(self, stage: str, moved: float, elapsed: float) -> None:
        """Takes a stage's outcome into account: how much of it this run has done itself, in how long [s]."""
        if moved:
            self.done += moved * self.seconds[stage]
            self.took += elapsed

    def heading(self, *stages: str) -> str:
        """For the line above stages that are about to begin: how much is done, their share, and the time left."""
        done, left = self.at(stages[0])
        return f"{done:.0%} done, this part takes {self.share(*stages):.0%}, {approximate(left)} left"


def approximate(seconds: float) -> str:
    """An estimated duration in words, with no more digits than an estimate has."""
    if seconds < 90:
        return f"about {max(10, 10 * math.ceil(seconds / 10))} s"
    return f"about {round(seconds / 60)} min"
