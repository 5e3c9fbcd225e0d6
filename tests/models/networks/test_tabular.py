import numpy as np
import pytest
import torch
from torch import nn

from bmtl.datasets.tables.bins import quantile_bins
from bmtl.models.networks import Tabular, tabular_trunk
from bmtl.models.networks.dropout import dropout_layers
from bmtl.models.networks.tabular import PiecewiseLinear


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_what_was_passed_of_each_bin_adds_up_to_the_feature():
    edges = [(-1.0, 0.0, 0.5, 3.0), (), (0.0, 2.0, 5.0)]
    x = torch.tensor([[-1.0, 9.0, 0.0], [0.25, 9.0, 4.0], [3.0, 9.0, 5.0], [0.0, 9.0, 2.0]])
    encoded = PiecewiseLinear(edges)(x)
    assert encoded.shape == (4, 5)
    assert ((encoded >= 0) & (encoded <= 1)).all()
    widths = torch.tensor([1.0, 0.5, 2.5, 2.0, 3.0])
    back = encoded * widths
    torch.testing.assert_close(-1.0 + back[:, :3].sum(1), x[:, 0])
    torch.testing.assert_close(back[:, 3:].sum(1), x[:, 2])
    outside = PiecewiseLinear(edges)(torch.tensor([[-7.0, 0.0, 70.0]]))
    assert outside.tolist() == [[0, 0, 0, 1, 1]]


def test_a_head_on_the_encoding_is_any_piecewise_linear_function():
    x = np.sort(np.random.default_rng(0).normal(size=400))[:, None]
    encoded = PiecewiseLinear(quantile_bins(x))(torch.as_tensor(x, dtype=torch.float32)).numpy()
    knots = np.array(quantile_bins(x)[0])
    y = np.interp(x[:, 0], knots, np.sin(3 * knots))
    design = np.column_stack([encoded, np.ones(400)])
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert np.abs(fitted - y).max() < 1e-5


def test_two_networks_make_one_representation():
    bins = [[-2.0, 0.0, 2.0], []]
    trunk = Tabular(2, (8, 5), bins=bins, generator=seeded())
    x = torch.randn(7, 2, generator=seeded())
    assert trunk(x).shape == (7, trunk.width) == (7, 10)
    assert {type(part) for part in trunk.modules()} >= {nn.ReLU, nn.SiLU}
    again = Tabular(2, (8, 5), bins=bins, generator=seeded())
    assert torch.equal(again(x), trunk(x))
    # Features beyond the bound count as the bound.
    assert torch.equal(trunk(torch.tensor([[9.0, -9.0]])), trunk(torch.tensor([[5.0, -5.0]])))


def test_the_mean_of_the_two_alone_is_the_prediction_of_both():
    """Under a linear head: rows take turns in training, and a prediction is of the mean."""
    trunk, head = Tabular(3, (8, 5), bins=[[-1.0, 0.0, 1.0]] * 3, generator=seeded()), nn.Linear(10, 2)
    x = torch.randn(7, 3, generator=seeded())
    alone = head(trunk.apart(x))
    swapped = head(trunk.apart(torch.cat([x[:1], x])))[1:]  # each row is the other's
    torch.testing.assert_close((alone + swapped) / 2, head(trunk(x)))
    h = trunk.apart(x)
    assert not h[::2, 5:].any()
    assert not h[1::2, :5].any()
    assert torch.equal(trunk.apart(x[:1]), trunk(x[:1]))


def test_numbers_that_nothing_was_fitted_on_are_not_clipped():
    trunk = Tabular(1, (4,), bins=None, generator=seeded())
    assert not torch.equal(trunk(torch.tensor([[9.0]])), trunk(torch.tensor([[5.0]])))


def test_rows_of_more_dimensions_are_flattened():
    trunk = tabular_trunk({"kind": "table", "width": 6, "bins": [[]] * 6}, widths=(4,), generator=seeded())
    x = torch.randn(5, 2, 3, generator=seeded())
    assert torch.equal(trunk(x), trunk(x.flatten(1)))


def test_dropout_layers_have_sites_of_their_own():
    trunk = Tabular(3, (4, 4), bins=[[]] * 3, mc_dropout=0.1)
    assert len(dropout_layers(trunk)) == 6


def test_an_activation_is_for_both_networks():
    kinds = {type(part) for part in Tabular(3, (4,), activation=nn.ELU).modules()}
    assert nn.ELU in kinds
    assert not kinds & {nn.ReLU, nn.SiLU}


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match="takes tables"):
        tabular_trunk({"kind": "graphs"}, widths=(4,), generator=seeded())
