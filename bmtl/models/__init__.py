"""Models: Pyro programs, their guides, and the networks inside them.

`bmtl.models.gaussian_process` is imported by that name: it needs GPyTorch, from the extra ``gp``.
"""

from bmtl.models.guides import Guide, Latent, MeanField, PointMass
from bmtl.models.heads import BayesianHeads, CommonPriorHeads, Heads, LinearHeads, TensorNormalHeads
from bmtl.models.likelihoods import LIKELIHOODS, Likelihood, likelihood_of
from bmtl.models.networks import MLP, Dropout, DropoutGuide, mlp
from bmtl.models.representations import Bottleneck, Deterministic, MCDropout, Representation
from bmtl.models.task_model import TaskModel

__all__ = [
    "LIKELIHOODS",
    "MLP",
    "BayesianHeads",
    "Bottleneck",
    "CommonPriorHeads",
    "Deterministic",
    "Dropout",
    "DropoutGuide",
    "Guide",
    "Heads",
    "Latent",
    "Likelihood",
    "LinearHeads",
    "MCDropout",
    "MeanField",
    "PointMass",
    "Representation",
    "TaskModel",
    "TensorNormalHeads",
    "likelihood_of",
    "mlp",
]
