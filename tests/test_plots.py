"""Plots show what they claim, in the size asked for, with the same bytes each time."""

import io
import math

import matplotlib.image
import numpy as np
import pytest
import torch

from voxlab import audio, plots, report


def tone(duration: float = 0.2, sample_rate: int = 24000, frequency: float = 3000.0) -> torch.Tensor:
    time = torch.arange(audio.compute_num_samples(duration, sample_rate)) / sample_rate
    return 0.5 * torch.sin(2 * math.pi * frequency * time)[None]


def test_spectrogram_plot_shows_the_tone_at_its_frequency():
    (image,) = plots.plot_spectrogram(tone(1.0), 24000).axes[0].get_images()
    level = np.asarray(image.get_array())
    assert image.get_extent() == [0, 1.0, 0, 12.0]
    assert image.origin == "lower"
    assert level[:, 40].argmax() == 3000 * 1024 // 24000
    low, high = image.get_clim()
    assert high == pytest.approx(20 * math.log10(0.5), abs=0.5)
    assert high - low == pytest.approx(80)


def test_spectrogram_plot_of_an_hour_stays_small():
    chart = plots.plot_spectrogram(torch.zeros(1, 2_000_000), 16000)
    assert np.asarray(chart.axes[0].get_images()[0].get_array()).shape[1] <= 1001


def test_codes_plot_stretches_slow_codebooks():
    chart = plots.plot_codes([torch.tensor([7, 9]), torch.arange(4), torch.arange(8)], 4096, 1.5)
    (image,) = chart.axes[0].get_images()
    assert np.asarray(image.get_array()).tolist() == [
        [7, 7, 7, 7, 9, 9, 9, 9],
        [0, 0, 1, 1, 2, 2, 3, 3],
        list(range(8)),
    ]
    assert image.get_extent() == [0, 1.5, 3.5, 0.5]
    assert image.get_clim() == (0, 4095)
    assert chart.axes[0].get_xlabel() == "time (s)"


def test_codes_plot_takes_arrays_and_numbers_frames():
    chart = plots.plot_codes(np.arange(12, dtype=np.int16).reshape(3, 4))
    (image,) = chart.axes[0].get_images()
    assert (image.get_extent(), image.get_clim()) == ([0, 4, 3.5, 0.5], (0, 11))
    assert chart.axes[0].get_xlabel() == "frame"


@pytest.mark.parametrize("codes", [[], [[]], [[1], []], torch.zeros(8, 0)])
def test_codes_plot_refuses_nothing(codes):
    with pytest.raises(ValueError, match="no codes"):
        plots.plot_codes(codes)


def test_png_is_reproducible_transparent_and_of_the_asked_size():
    first, second = (plots.render_png(plots.plot_codes([[1, 2]], size=(2, 1))) for _ in range(2))
    assert first == second
    pixels = matplotlib.image.imread(io.BytesIO(first))
    assert pixels.shape == (192, 384, 4)
    assert pixels[0, 0, 3] == 0
    assert 'width="192" height="96"' in report.figure("", first).body


def test_no_label_is_cut_off():
    for chart in (
        plots.plot_spectrogram(tone(), 48000),
        plots.plot_codes(torch.arange(64).reshape(32, 2), 4096, 3.2),
        plots.plot_histogram([-12.5, 3.0, 3.1], "gain (dB)"),
        plots.plot_curves({"a": ([0, 1], [0.1, 0.2])}, "step", "loss"),
        plots.plot_curves({f"position = {n}.25": ([0, 1], [n, n]) for n in range(3)}, "s", "of range", size=plots.CARD),
    ):
        pixels = matplotlib.image.imread(io.BytesIO(plots.render_png(chart)))
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (border[:, 3] == 0).all()


def test_figures_never_enter_the_registry_of_pyplot():
    from matplotlib import _pylab_helpers

    plots.render_png(plots.plot_spectrogram(tone(), 24000))
    assert not _pylab_helpers.Gcf.figs


def test_histogram_counts_every_value():
    chart = plots.plot_histogram([0.0, 0.1, 0.9, 1.0], "gain (dB)", bins=2)
    assert [bar.get_height() for bar in chart.axes[0].patches] == [2, 2]
    with pytest.raises(ValueError, match="no values"):
        plots.plot_histogram([], "gain (dB)")


def test_a_histogram_fills_the_page():
    chart = plots.plot_histogram([0.0, 1.0], "gain (dB)")
    assert chart.axes[0].get_position().width > 0.9
    assert 1000 < chart.get_figwidth() * 96 < 1040  # a card of the page has 1038 pixels


def test_nearly_equal_values_have_an_axis_of_plain_numbers():
    chart = plots.plot_histogram([6.0205999, 6.0206001], "gain (dB)")
    low, high = chart.axes[0].get_xlim()
    assert low < 6.0206 < high
    assert high - low > 0.005
    chart.draw_without_rendering()
    assert chart.axes[0].xaxis.get_offset_text().get_text() == ""


def test_curves_are_drawn_as_given_and_named():
    chart = plots.plot_curves({"a": ([0, 1, 2], [3.0, 2.0, 1.5]), "b": ([0, 2], [1.0, 1.0])}, "step", "loss")
    assert [list(line.get_ydata()) for line in chart.axes[0].get_lines()] == [[3.0, 2.0, 1.5], [1.0, 1.0]]
    assert [text.get_text() for text in chart.axes[0].get_legend().get_texts()] == ["a", "b"]
    dashed = plots.plot_curves({"a": ([0, 1], [0, 1]), "b": ([0, 1], [1, 1])}, "s", "", dashed=["b"])
    assert [line.get_linestyle() for line in dashed.axes[0].get_lines()] == ["-", "--"]
    with pytest.raises(ValueError, match="no curves"):
        plots.plot_curves({}, "step", "loss")
