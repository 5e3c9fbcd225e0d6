"""Exact solvers for K x K problems, in float64 on the host.

Every problem is posed on the cosine matrix ``C`` and in coordinates on unit gradients, ``x = n alpha``: gradient norms
that span many decades then enter through vectors only. Residuals are those of the problem without the small ridge that
the linear algebra needs.
"""

from bmtl.inference.balancing.solvers.ball import conflict_averse
from bmtl.inference.balancing.solvers.barrier import barrier_newton
from bmtl.inference.balancing.solvers.cosines import cancelled, unit_diagonal
from bmtl.inference.balancing.solvers.linear import aligned, equal_projections
from bmtl.inference.balancing.solvers.pivoting import nearest_without_conflict
from bmtl.inference.balancing.solvers.simplex import onto_simplex, shortest_combination, shortest_in_hull, simplex_qp
from bmtl.inference.balancing.solvers.surgery import without_conflicts
from bmtl.inference.balancing.solvers.threads import one_thread

__all__ = [
    "aligned",
    "barrier_newton",
    "cancelled",
    "conflict_averse",
    "equal_projections",
    "nearest_without_conflict",
    "one_thread",
    "onto_simplex",
    "shortest_combination",
    "shortest_in_hull",
    "simplex_qp",
    "unit_diagonal",
    "without_conflicts",
]
