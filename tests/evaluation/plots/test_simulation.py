import numpy as np
import pytest

from bmtl.evaluation.plots.simulation import rank_deviations
from bmtl.evaluation.simulation import rank_calibration
from tests.evaluation.test_simulation import simulated


def test_deviations_are_those_of_the_ecdf_in_its_bands():
    found = rank_calibration(*simulated(0.5, latents=3))
    figure = rank_deviations(found, latents=["a[2]", "a[0]"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a[2]", "a[0]"]
    of = found.sel(latent="a[2]")
    (line,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    np.testing.assert_allclose(line.get_ydata(), of["ecdf"] - of["point"])
    assert line.get_ydata().max() > 0.1  # a guide that sits too high has the truth low among its draws
    edges = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert edges.max() == pytest.approx(float((of["upper"] - of["point"]).max()))
    assert {text.get_text() for text in figure.legends[0].texts} == {"guide", "calibrated, 95% of whole curves"}


def test_more_latents_than_fit_are_told():
    found = rank_calibration(*simulated(latents=38, datasets=20))
    figure = rank_deviations(found)
    assert len(figure.axes) == 36
    assert figure.get_supxlabel().endswith("the first 36 of 38 latents")
    with pytest.raises(ValueError, match="no latent 'b'"):
        rank_deviations(found, latents=["b"])
