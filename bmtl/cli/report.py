"""``bmtl report``: one page of a comparison or a run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bmtl.cli.console import app, console
from bmtl.cli.progress import progress


@app.command()
def report(
    source: Annotated[Path, typer.Argument(help="Folder of a comparison or a run, or a results.nc.")],
    out: Annotated[Path | None, typer.Option(help="The page; by default report.html in the folder.")] = None,
) -> None:
    """Write one page with words, tables and pictures, from the files of a comparison or a run. It needs no network."""
    from bmtl.evaluation.report import TITLES
    from bmtl.evaluation.report import report as write

    with progress(console, len(TITLES), "sections", "now the file") as advance:
        file = write(source, out, done=advance)
    console.print(f"Wrote {escape(str(file))} ({file.stat().st_size / 1e6:.1f} MB).", soft_wrap=True)
