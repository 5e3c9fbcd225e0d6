"""Sphinx's configuration: `make docs` builds the pages of this folder, with warnings as errors."""

import os
import tempfile
from importlib.metadata import version as installed
from pathlib import Path

project = "bmtl"
author = "The bmtl developers"
release = installed("bmtl")
version = release

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The tutorials are notebooks in Markdown: their cells run when the site is built, in a folder of their own.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove"  # progress bars

# A figure that ends a cell is shown.
_profile = tempfile.TemporaryDirectory()
os.environ["IPYTHONDIR"] = _profile.name
_config = Path(_profile.name) / "profile_default" / "ipython_kernel_config.py"
_config.parent.mkdir()
_config.write_text('c.InteractiveShellApp.exec_lines = ["%matplotlib inline"]\n', encoding="utf-8")

html_theme = "furo"
html_title = "bmtl"
html_show_sourcelink = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "code"  # single backticks in docstrings are names
