import numpy as np
import pytest

from bmtl.datasets.table import Table
from bmtl.datasets.tables.bins import quantile_bins

RANDOM = np.random.default_rng(0)


def test_bins_hold_equally_many_rows():
    x = RANDOM.exponential(size=(640, 2))
    for edges, column in zip(quantile_bins(x), x.T, strict=True):
        counts, _ = np.histogram(column, edges)
        assert len(counts) == 16
        assert (edges[0], edges[-1]) == (column.min(), column.max())
        assert counts.min() >= 39
        assert counts.max() <= 41


@pytest.mark.parametrize(("rows", "bins"), [(39, 0), (40, 2), (199, 9), (400, 16), (4000, 16)])
def test_few_rows_have_few_bins(rows, bins):
    (edges,) = quantile_bins(RANDOM.normal(size=(rows, 1)))
    assert max(0, len(edges) - 1) == bins


def test_columns_of_one_or_two_values_and_wide_tables_have_none():
    x = np.column_stack([np.zeros(100), np.arange(100) % 2, np.arange(100) % 3])
    assert [len(edges) for edges in quantile_bins(x)] == [0, 0, 3]
    assert set(map(len, quantile_bins(RANDOM.normal(size=(100, 257))))) == {0}


def test_a_table_fits_them_on_its_training_rows_and_keeps_them():
    x = RANDOM.normal(size=(100, 2))
    table = Table.fit(x, np.arange(60))
    assert max(table.bins[0]) == pytest.approx(table.scaler.transform(x[:60])[:, 0].max())
    changed = x.copy()
    changed[60:] += 100
    assert Table.fit(changed, np.arange(60)).bins == table.bins
    assert Table.from_state(table.state()).bins == table.bins
    assert Table.fit(x, None).bins is None
