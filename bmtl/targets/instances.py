"""Objects of an image, by a number or by a vector per pixel: from the pixel to the centroid of its object.

Pixels are at whole numbers, x to the right and y down. Centroids are rounded to 1/64 of a pixel, so that pixel + vector is
the centroid exactly, in float32 too, and identifies the object.

Source:
    Kendall, Gal & Cipolla (2018), Multi-Task Learning Using Uncertainty to Weigh Losses, section 4.2.
"""

import numpy as np
from numpy.typing import ArrayLike

GRID = 64
"""Parts of a pixel that centroids are rounded to."""


def pixel_positions(height: int, width: int) -> np.ndarray:
    """Position of each pixel ``(H, W, 2)``, x and y, float32."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], axis=-1).astype(np.float32)


def instance_vectors(instances: ArrayLike) -> np.ndarray:
    """The vector from each pixel to the centroid of its object.

    Args:
        instances: Numbers of the objects ``(..., H, W)``, whole; 0 is no object.

    Returns:
        ``(..., H, W, 2)`` in pixels, x and y, float32; NaN where there is no object. Of an object of one pixel it is zero.

    Raises:
        ValueError: If the numbers are not whole, negative, or no images.
    """
    numbers = np.asarray(instances)
    if numbers.ndim < 2 or numbers.dtype.kind not in "iu" or (numbers.size and numbers.min() < 0):
        raise ValueError(
            f"Numbers of objects are whole, from 0 for none, of shape (..., H, W); got {numbers.dtype} {numbers.shape}."
        )
    height, width = numbers.shape[-2:]
    positions = pixel_positions(height, width)
    images = numbers.reshape(-1, height, width)
    found = np.full((len(images), height, width, 2), np.nan, dtype=np.float32)
    for image, vectors in zip(images, found, strict=True):
        there = image > 0
        _, which, sizes = np.unique(image[there], return_inverse=True, return_counts=True)
        own = positions[there]
        sums = np.stack([np.bincount(which, own[:, k], minlength=len(sizes)) for k in range(2)], axis=-1)
        centroids = np.rint(GRID * sums / sizes[:, None]) / GRID
        vectors[there] = centroids[which] - own
    return found.reshape(*numbers.shape, 2)


def instance_numbers(vectors: ArrayLike) -> np.ndarray:
    """The inverse of `instance_vectors`: objects ``(..., H, W)`` numbered from 1 in each image, 0 for none, int32.

    Centroids are inside the image, as those of labels are. Objects whose centroids are the same to 1/64 of a pixel are one.

    Args:
        vectors: ``(..., H, W, 2)`` as labels have them, NaN where there is no object.

    Raises:
        ValueError: If the shape is another.
    """
    given = np.asarray(vectors, dtype=np.float32)
    if given.ndim < 3 or given.shape[-1] != 2:
        raise ValueError(f"Vectors to centroids have the shape (..., H, W, 2); got {given.shape}.")
    height, width = given.shape[-3:-1]
    images = given.reshape(-1, height, width, 2)
    found = np.zeros(images.shape[:-1], dtype=np.int32)
    for image, numbers in zip(images, found, strict=True):
        there = ~np.isnan(image).any(axis=-1)
        if there.any():
            centroids = np.rint(GRID * (image + pixel_positions(height, width))[there]).astype(np.int64)
            key = centroids[:, 0] + GRID * width * centroids[:, 1]  # one number a centroid: centroids are in the image
            numbers[there] = np.unique(key, return_inverse=True)[1] + 1
    return found.reshape(given.shape[:-1])
