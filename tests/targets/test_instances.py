import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmtl.targets.instances import GRID, instance_numbers, instance_vectors, pixel_positions
from tests.evaluation.classifications import steady


def blobs(seed, size=(9, 11)):
    """Numbers of some rectangles, later ones in front."""
    random = np.random.default_rng(seed)
    image = np.zeros(size, dtype=np.int64)
    for k in range(1, random.integers(1, 6)):
        y, x = random.integers(size[0]), random.integers(size[1])
        image[y : y + random.integers(1, 5), x : x + random.integers(1, 5)] = k
    return image


@steady
@given(st.integers(0, 2**32 - 1))
def test_vectors_equal_a_loop_and_lead_back_to_the_objects(seed):
    numbers = blobs(seed)
    vectors = instance_vectors(numbers)
    assert vectors.dtype == np.float32
    for y in range(9):
        for x in range(11):
            if numbers[y, x] == 0:
                assert np.isnan(vectors[y, x]).all()
                continue
            ys, xs = np.nonzero(numbers == numbers[y, x])
            centroid = np.round(GRID * np.array([xs.mean(), ys.mean()])) / GRID
            assert (vectors[y, x] + [x, y] == centroid).all()
    again = instance_numbers(vectors)
    assert ((again > 0) == (numbers > 0)).all()
    ends = {k: tuple((vectors + pixel_positions(9, 11))[numbers == k][0]) for k in np.unique(numbers[numbers > 0])}
    if len(set(ends.values())) == len(ends):  # no two objects with one centroid
        assert len(set(zip(again.ravel(), numbers.ravel(), strict=True))) == len(np.unique(numbers))


def test_any_number_of_images():
    numbers = np.stack([blobs(seed) for seed in range(6)])
    vectors = instance_vectors(numbers.reshape(2, 3, 9, 11))
    assert vectors.shape == (2, 3, 9, 11, 2)
    np.testing.assert_array_equal(vectors[1, 2], instance_vectors(numbers[5]))
    np.testing.assert_array_equal(instance_numbers(vectors)[1, 2], instance_numbers(vectors[1, 2]))


def test_an_object_of_one_pixel_points_to_itself():
    numbers = np.zeros((3, 4), dtype=int)
    numbers[1, 2] = 17
    vectors = instance_vectors(numbers)
    assert vectors[1, 2].tolist() == [0, 0]
    assert instance_numbers(vectors)[1, 2] == 1


def test_other_arrays_are_refused():
    for wrong in (np.zeros((3, 4)), np.full((3, 4), -1), np.zeros(3, dtype=int)):
        with pytest.raises(ValueError, match="from 0 for none"):
            instance_vectors(wrong)
    with pytest.raises(ValueError, match=r"\(..., H, W, 2\); got \(3, 4\)"):
        instance_numbers(np.zeros((3, 4)))
