"""Where a run is judged: ``results`` (the tree), ``metrics`` (scores), ``comparison`` (methods), ``plots`` (pictures).

``conflicts`` reads how task gradients lay to each other over a run, ``trust`` whether the posterior is right.

Nothing here knows a model, a guide or an optimizer: everything takes arrays, or the tree that ``results`` builds from
them, so a file written on one machine is read and compared on another that has no torch. The modules are imported by
name (``from bmtl.evaluation import results``), so that writing results does not load a plotting library.
"""
