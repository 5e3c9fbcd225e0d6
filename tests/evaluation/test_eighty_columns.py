"""Twenty methods in a terminal of eighty columns."""

from bmtl.evaluation.comparison import compare
from bmtl.evaluation.text_tables import to_text
from tests.evaluation import trees

NAMES = [*(f"method-{i:02d}" for i in range(18)), "igb-v1 >> last-layer >> nash-mtl >> norm", "bakker-heskes"]


def test_twenty_methods_are_read_without_a_broken_line(run_arrays):
    grid = {}
    for i, name in enumerate(NAMES):
        for split in range(2):
            run = run_arrays(targets=("mu", "homo", "cv", "u298"), seed=split, variant=i, rows=12, draws=2, steps=2)
            kept = {part: run[part] for part in ("observed", "predictive_mean", "pit", "units", "training")}
            grid[name, split] = trees.tree(**kept, method=name)
    text = to_text(compare(grid, baseline=NAMES[0], reference=None), width=80)
    assert max(map(len, text.splitlines())) <= 80
    blocks = [block for block in text.split("\n\n") if "-----" in block]
    assert len(blocks) >= 3  # the scores of four targets do not fit one line
    for block in blocks:
        _, header, rule, *rows = block.strip().splitlines()
        assert [row.split("  ")[0] for row in rows] == NAMES  # whole names, a row a method in every block
        assert len(rule) == max(map(len, [header, *rows]))
