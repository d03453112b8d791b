"""What a reader sees of a figure, measured on the drawn canvas."""

import pytest

from atomlab.report import series_figure


@pytest.mark.parametrize(("count", "length"), [(2, 12), (5, 20), (18, 50), (24, 36), (7, 80)])
def test_a_legend_is_no_wider_than_its_figure_and_leaves_the_axes_their_height(count: int, length: int) -> None:
    """Seen on the page of a sweep: names were cut off at both sides."""
    series = {f"vectors {number} ".ljust(length, "n"): [(1.0, 2.0), (2.0, 3.0)] for number in range(count)}
    figure = series_figure(series, "atoms", "R²")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, axes = legend.get_window_extent(), figure.axes[0].get_window_extent()
    assert len(legend.get_texts()) == count
    assert box.x0 >= 0
    assert box.x1 <= figure.get_figwidth() * figure.dpi
    assert axes.height > 1.5 * figure.dpi
    assert axes.y0 >= box.y1
