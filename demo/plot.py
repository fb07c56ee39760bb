"""Plots the losses of the training."""

import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

STAGES = ("vision", "audio", "text", "colour", "look")


def plot_losses(workshop: Path, output: Path) -> None:
    """One panel for each stage that has a ``NAME.csv``; see ``Progress``."""
    stages = [stage for stage in STAGES if (workshop / f"{stage}.csv").is_file()]
    figure, panels = plt.subplots(1, len(stages), figsize=(4 * len(stages), 3), squeeze=False)
    for panel, stage in zip(panels[0], stages, strict=True):
        with (workshop / f"{stage}.csv").open(encoding="utf-8") as file:
            points = [(int(step), float(loss)) for step, loss in csv.reader(file)]
        panel.plot(*zip(*points, strict=True), color="#3b5bdb")
        panel.set(title=stage, xlabel="step", yscale="log")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("loss, all heads together")
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    plt.close(figure)
    print(f"losses: {output}")
