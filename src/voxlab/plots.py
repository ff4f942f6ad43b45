"""Plots in colours that suit light and dark pages: spectrogram, codes, histogram, curves; PNG bytes of a figure."""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from voxlab.audio import Seconds, compute_duration, compute_spectrogram

CARD = (3.3, 1.65)  # inches, the plots of a clip
WIDE = (10.8, 2.5)  # inches, a plot that fills the page

_DPI = 192  # two PNG pixels per CSS pixel: sharp on a phone
INK = "#7a818c"  # axes and labels: legible on the light and on the dark background
_LEFT_OF_NUMBERS = 0.75  # inches, for labels like 0.00012
_RIGHT_OF_PLOT = 0.25  # inches, where no scale of colours stands and no plot above has one
_LEGEND_COLUMNS, _LEGEND_COLUMNS_OF_CARD = 3, 2
_FEW_POINTS = 3  # a line of fewer would not be seen
_FILL = "#5b8def"
_MARGINS = (0.42, 0.7, 0.4, 0.08)  # inches left, right, below, above: fixed, so that time axes line up in a card


def plot_spectrogram(wav: Tensor, sample_rate: int, *, size: tuple[float, float] = CARD) -> Figure:
    """Draw the level of each frequency over time, 80 dB deep.

    Args:
        wav: (C, T) waveform, T >= 1.
        sample_rate: Hz.
        size: width and height in inches.
    """
    hop_length = max(256, wav.shape[-1] // 1000)  # more columns than the picture has pixels would only cost time
    level = compute_spectrogram(wav, hop_length=hop_length)
    top = float(level.max())
    chart, axes = _new_figure(size)
    duration = compute_duration(wav.shape[-1], sample_rate)
    extent = (0.0, duration, 0.0, sample_rate / 2000)
    image = axes.imshow(
        level.cpu().numpy(), origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=top - 80, vmax=top
    )
    axes.set(xlabel="time (s)", ylabel="kHz")
    _add_colorbar(chart, image, "dB")
    return chart


def plot_codes(
    codes: Sequence[Any],
    codebook_size: int | None = None,
    duration: Seconds | None = None,
    *,
    size: tuple[float, float] = CARD,
) -> Figure:
    """Draw codes as colours, one row per codebook, the coarsest on top.

    Args:
        codes: per codebook (N_k,) integers, or a (K, N) array; slower codebooks are stretched to the fastest.
        codebook_size: number of entries per codebook, for the scale of colours; None takes the largest code present.
        duration: what the codes cover, in seconds; None numbers the frames instead.
        size: width and height in inches.

    Raises:
        ValueError: there are no codes.
    """
    rows = [torch.as_tensor(row).cpu() for row in codes]
    finest = max((len(row) for row in rows), default=0)
    if not rows or min(len(row) for row in rows) == 0:
        raise ValueError("there are no codes to draw")
    grid = torch.stack([row[torch.arange(finest) * len(row) // finest] for row in rows])
    chart, axes = _new_figure(size)
    extent = (0.0, finest if duration is None else duration, len(grid) + 0.5, 0.5)
    top = codebook_size - 1 if codebook_size else int(grid.max())
    image = axes.imshow(
        grid.numpy(), aspect="auto", interpolation="nearest", extent=extent, cmap="viridis", vmin=0, vmax=top
    )
    axes.set(xlabel="frame" if duration is None else "time (s)", ylabel="codebook")
    _add_colorbar(chart, image, "code")
    return chart


def plot_histogram(values: Sequence[float], xlabel: str, *, bins: int = 40, size: tuple[float, float] = WIDE) -> Figure:
    """Draw how often values occur.

    Args:
        values: finite numbers, at least one.
        xlabel: what they are, with their unit.
        bins: number of bars.
        size: width and height in inches.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("there are no values to draw")
    chart, axes = _new_figure(size, _LEFT_OF_NUMBERS, right=_right_of(size))
    axes.hist(list(values), bins=bins, color=_FILL, range=_spread(min(values), max(values)))
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set(xlabel=xlabel, ylabel="count")
    return chart


def _spread(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis; of values that are nearly equal, so far apart that its numbers are plain."""
    least = 1e-3 * max(abs(low), abs(high), 1e-3)
    return (low, high) if high - low > least else (low - 0.5 * least, high + 0.5 * least)


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    dashed: Collection[str] = (),
    size: tuple[float, float] = WIDE,
) -> Figure:
    """Draw named curves (x, y) over one axis, with a legend where there are several.

    Args:
        curves: name -> (x, y).
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        dashed: names of curves that are set apart.
        size: width and height in inches.

    Raises:
        ValueError: there are no curves.
    """
    if not curves:
        raise ValueError("there are no curves to draw")
    columns = _LEGEND_COLUMNS_OF_CARD if size == CARD else _LEGEND_COLUMNS
    lines = -(-len(curves) // columns) if len(curves) > 1 else 0
    chart, axes = _new_figure(size, _LEFT_OF_NUMBERS, _MARGINS[3] + 0.16 * lines, right=_right_of(size))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    for name, (x, y) in curves.items():
        style, marker = "--" if name in dashed else "-", "." if len(x) < _FEW_POINTS else None
        axes.plot(x, y, linewidth=1.2, linestyle=style, label=name, marker=marker)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if len(curves) > 1:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns, "borderpad": 0}
        axes.legend(fontsize=7, labelcolor=INK, frameon=False, handlelength=1, columnspacing=1, **place)
    return chart


def _new_figure(
    size: tuple[float, float], left: float = _MARGINS[0], above: float = _MARGINS[3], *, right: float = _MARGINS[1]
) -> tuple[Figure, Axes]:
    """Make a figure outside pyplot, whose registry would keep it alive, with colours that suit light and dark pages."""
    (width, height), below = size, _MARGINS[2]
    chart = Figure(figsize=size, facecolor="none")
    box = (left / width, below / height, 1 - (left + right) / width, 1 - (below + above) / height)
    axes = chart.add_axes(box, facecolor="none")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    _style_axes(axes)
    return chart, axes


def _right_of(size: tuple[float, float]) -> float:
    """Return the margin on the right of a plot without scale of colours: in a card as wide as that of the others."""
    return _MARGINS[1] if size == CARD else _RIGHT_OF_PLOT


def _style_axes(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=8, length=3, width=0.6)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=8)
    axes.spines[:].set(color=INK, linewidth=0.6)


def _add_colorbar(chart: Figure, image: AxesImage, label: str) -> None:
    box, inch = chart.axes[0].get_position(), 1 / chart.get_figwidth()
    strip = chart.add_axes((box.x1 + 0.08 * inch, box.y0, 0.08 * inch, box.height))
    bar = chart.colorbar(image, cax=strip, label=label, ticks=MaxNLocator(nbins=4))
    bar.outline.set_visible(False)  # type: ignore[operator]  # the stubs take it for the property's setter
    _style_axes(strip)


def render_png(chart: Figure) -> bytes:
    """Draw a figure as PNG with a transparent background; equal figures give equal bytes."""
    file = io.BytesIO()
    chart.savefig(file, format="png", dpi=_DPI, transparent=True, metadata={"Software": None})
    return file.getvalue()
