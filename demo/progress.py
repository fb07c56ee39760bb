"""Reports the progress, the remaining time and the losses of a training stage."""

import csv
import time
from pathlib import Path


class Progress:
    """Prints the progress at regular intervals and writes the mean losses to a file.

    Args:
        name: of the stage.
        steps: total number of steps.
        folder: for ``NAME.csv``.
        every: number of steps between two lines.
    """

    def __init__(self, name: str, steps: int, folder: Path, every: int = 100) -> None:
        self._name, self.steps, self._every = name, steps, every
        self._path = folder / f"{name}.csv"
        self._started = time.monotonic()
        self._sums: dict[str, float] = {}
        self._seen = 0
        self._first: int | None = None

    def step(self, step: int, losses: dict[str, float]) -> None:
        """Add the losses of a step. Steps count from 0; a resumed run begins with a later step."""
        if self._first is None:
            self._first = step
            if step == 0:
                self._path.unlink(missing_ok=True)
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss
        self._seen += 1
        if (step + 1) % self._every == 0 or step + 1 == self.steps:
            self._tell(step + 1)

    def _tell(self, done: int) -> None:
        means = {name: total / self._seen for name, total in self._sums.items()}
        self._sums, self._seen = {}, 0
        assert self._first is not None, "step() is called before _tell()"
        pace = (time.monotonic() - self._started) / (done - self._first)  # seconds a step
        figures = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        print(
            f"{self._name}: step {done:,} of {self.steps:,}, {figures}, "
            f"{pace:.2f} s a step, {pace * (self.steps - done) / 60:.0f} min left",
            flush=True,
        )
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([done, f"{sum(means.values()):.5f}"])
