"""Sphinx's configuration: `make docs` builds the pages of this folder, with warnings as errors."""

from importlib.metadata import version as installed

project = "bmtl"
author = "The bmtl developers"
release = installed("bmtl")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "bmtl"
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "code"  # single backticks in docstrings are names
