"""Reference rows of a comparison, from scikit-learn: trained in seconds, each with a predictive distribution."""

from bmtl.experiments.references import classes, counts, real, survival, vectors  # each registers its families
from bmtl.experiments.references.base import REFERENCES, Rows, fit
from bmtl.experiments.references.runs import run_references

__all__ = ["REFERENCES", "Rows", "classes", "counts", "fit", "real", "run_references", "survival", "vectors"]
