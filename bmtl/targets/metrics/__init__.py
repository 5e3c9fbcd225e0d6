"""Scores of plain arrays, one idea a file. Scores of results trees are in `bmtl.evaluation.metrics`."""
