"""The results of a comparison or a run on one page: words, tables and pictures, from the NetCDF files alone.

The page is one file that fetches nothing; ``bmtl report`` writes it. How it comes about: `runs` reads the folder, `summary`
and the tables turn datasets into `markup`, `pictures` says what can be drawn, and `page` puts sections under one another.
"""

from bmtl.evaluation.report.sections import TITLES, report, to_html

__all__ = ["TITLES", "report", "to_html"]
