"""Where a run computes, and how precisely: devices and precisions by name."""

from typing import Literal, get_args

import torch

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "float64", "bf16-mixed"]

DEVICES: tuple[str, ...] = get_args(Device)
PRECISIONS: tuple[str, ...] = get_args(Precision)
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16-mixed": torch.float32}
"""Precision -> that of parameters and inputs."""
AMP = {"float32": "32-true", "float64": "32-true", "bf16-mixed": "bf16-mixed"}
"""Precision -> Lightning's, which converts nothing unless it is mixed."""
ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}
"""Device -> Lightning's name of it."""


def check_device(device: str) -> None:
    """Raises a ``ValueError`` if there is no such device here; says what there is."""
    if device == "cuda" and not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise ValueError(
            f"The device cuda was asked for, and torch {torch.__version__}, built {built}, sees no CUDA device here. "
            "Use the device cpu, or check the driver and install a torch that is built for it."
        )
