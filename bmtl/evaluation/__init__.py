"""Evaluation of runs: ``results`` (the tree), ``metrics`` (scores), ``comparison`` (of methods), ``plots``, ``report``.

``conflicts`` compares the directions of task gradients over a run, ``trust`` judges a posterior.

No module here depends on models, guides or optimizers: everything takes arrays, or the tree that ``results`` builds from
them, so a file written on one machine is read and compared on another that has no torch. The modules are imported by
name (``from bmtl.evaluation import results``), so that writing results does not load a plotting library.
"""
