"""``python -m bmtl`` is the command line."""

from bmtl.cli import main

main()
