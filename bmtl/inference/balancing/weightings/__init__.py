"""Slot 3: weights from the Gram matrix of the task gradients."""

from bmtl.inference.balancing.weightings.aligned_mtl import AlignedMTL
from bmtl.inference.balancing.weightings.bayes_agg import BayesAgg
from bmtl.inference.balancing.weightings.cagrad import CAGrad
from bmtl.inference.balancing.weightings.conflict_free import ConFIG
from bmtl.inference.balancing.weightings.db_mtl import DBMTL
from bmtl.inference.balancing.weightings.dual_proj import DualProj
from bmtl.inference.balancing.weightings.fair_grad import FairGrad
from bmtl.inference.balancing.weightings.grad_drop import GradDrop
from bmtl.inference.balancing.weightings.gradvac import GradVac
from bmtl.inference.balancing.weightings.imtl_g import IMTLG
from bmtl.inference.balancing.weightings.mgda import MGDA
from bmtl.inference.balancing.weightings.moco import MoCo
from bmtl.inference.balancing.weightings.nash_mtl import NashMTL
from bmtl.inference.balancing.weightings.pcgrad import PCGrad
from bmtl.inference.balancing.weightings.sdm_grad import SDMGrad
from bmtl.inference.balancing.weightings.upgrad import UPGrad

__all__ = [
    "DBMTL",
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "BayesAgg",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "FairGrad",
    "GradDrop",
    "GradVac",
    "MoCo",
    "NashMTL",
    "PCGrad",
    "SDMGrad",
    "UPGrad",
]
