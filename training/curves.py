"""A run's curves as a picture, from the metrics it wrote itself."""

from pathlib import Path

from training.metrics import read_metrics


def curves(workdir: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values (nats a token) of the training loss and of the validation NLL.

    A run that was resumed repeats the steps since its checkpoint; what it wrote last counts.

    Raises:
        ValueError: the folder has no metrics.
    """
    try:
        metrics = read_metrics(workdir)
    except FileNotFoundError:
        metrics = []
    if not metrics:
        raise ValueError(f"{workdir} has no metrics yet: give the working folder of a run")
    found = {}
    for name in ("loss", "validation_nll"):
        by_step = {int(line["step"]): line[name] for line in metrics if name in line}
        found[name] = sorted(by_step), [by_step[step] for step in sorted(by_step)]
    return found


def draw(workdir: Path, output: Path) -> None:
    """Write the curves as a PNG; ValueError as above, or for another kind of file."""
    if output.suffix.lower() != ".png":
        raise ValueError(f"{str(output)!r} does not end in .png: choose an output path that does")
    found = curves(workdir)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="nats a token")
    axes.plot(*found["loss"], label="training, mean of 50 steps")
    axes.plot(*found["validation_nll"], "o-", label="validation, a sample of windows")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(output)
