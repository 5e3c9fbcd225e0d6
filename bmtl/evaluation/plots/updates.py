"""The update itself over the steps: what it does to the worst-served task, and how true a cheap geometry is."""

from matplotlib.figure import Figure

from bmtl.evaluation.conflicts import compared
from bmtl.evaluation.history import has, moving_average
from bmtl.evaluation.style import Trees, lines_of, method_legend, named, styled


def fidelity_curves(trees: Trees, *, window: int | None = None) -> Figure:
    """Cosine of the update with the one from the full gradients over the steps, a line per method.

    1 says that a cheap geometry costs nothing in direction.

    Args:
        trees: A results tree whose balancer recorded it (``last-layer(fidelity_every=20)``), or method -> tree. Those
            that recorded none are left out.
        window: Measured steps of the centred moving average; a 25th of each run's by default.

    Raises:
        ValueError: If no run recorded it.
    """
    figure = _curves(
        trees,
        "fidelity",
        "Cosine with the full update",
        window,
        "Ask the geometry for it: 'last-layer(fidelity_every=20) >> nash-mtl'.",
    )
    axes = figure.axes[0]
    low = min(axes.get_ylim()[0], 0.9)  # so that a thousandth does not look like a fall
    axes.set_ylim(low, 1.0 + 0.03 * (1.0 - low))
    return figure


def projection_curves(trees: Trees, *, window: int | None = None) -> Figure:
    """Least cosine of a task gradient with the shared update over the steps, a line per method.

    Below the line at zero the update raises some task's loss, to first order.

    Args:
        trees: A results tree whose balancer compared gradients, or method -> tree. Those that recorded
            none are left out.
        window: Measured steps of the centred moving average; a 25th of each run's by default.

    Raises:
        ValueError: If no run recorded it.
    """
    return _curves(
        trees,
        "projection",
        "Least cosine with the update",
        window,
        "Use a balancer that compares gradients: a weighting such as 'nash-mtl', or for the record 'ew >> full(every=10)'.",
    )


def _curves(trees: Trees, name: str, label: str, window: int | None, remedy: str) -> Figure:
    runs = named(trees)
    found = {method: compared(tree, name) for method, tree in runs.items() if has(tree, name)}
    if not found:
        raise ValueError(f"None of the runs {list(runs)} recorded the {name}. {remedy}")
    with styled():
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        for method, line in lines_of(list(found)).items():
            measured = found[method]
            few = measured.sizes["step"] <= 40  # then each measurement is worth a mark
            smooth = moving_average(measured.values, window)
            axes.plot(measured["step"], smooth, **line, marker="o" if few else None, markersize=3)
        if axes.get_ylim()[0] < 0:
            axes.axhline(0, color="#666666", linewidth=0.8, zorder=1)
        steps = "4 % of the measured steps" if window is None else f"{window} measured steps"
        axes.set_xlabel(f"Step (moving average over {steps})")
        axes.set_ylabel(label)
        method_legend(figure, list(found))
    return figure
