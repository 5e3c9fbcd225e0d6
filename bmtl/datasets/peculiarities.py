"""What is peculiar about a data set, to be warned of before training."""

from collections.abc import Mapping

import numpy as np

from bmtl.datasets.copies import warning_of_copies
from bmtl.datasets.describing import first_names, label_text
from bmtl.datasets.input_kind import Inputs
from bmtl.datasets.leaks import warning_of_leaks
from bmtl.targets import Target

_FEW_ROWS = 10
_FEW_LABELS = 5


def peculiarities(inputs: Inputs, targets: Mapping[str, Target], rows: Mapping[str, np.ndarray]) -> list[str]:
    """Targets of which nothing can be learnt or scored, few test rows, and features and test rows that say too much.

    Args:
        inputs: Of all rows.
        targets: Labels of all rows.
        rows: Part -> its rows.

    Returns:
        A sentence each.
    """
    none = np.empty(0, dtype=np.int64)
    train, val, test = rows["train"], rows.get("val", none), rows.get("test", none)
    found = []
    if 0 < len(test) < _FEW_ROWS:
        found.append(
            f"The number of test rows is {len(test)}: scores on so few say little. Compare on several splits, or give more "
            "rows."
        )
    for name, target in targets.items():
        values = target.values[train[target.labelled[train]]]
        if len(values) > 1 and (values == values[0]).all():
            found.append(
                f"The target {name!r} is {label_text(target.family, values[0])} in all of its {len(values):,} training "
                "rows: nothing can be learnt of it, and it counts in means over targets. Leave it out, or draw another "
                "split."
            )
    unscored = [name for name, target in targets.items() if "test" in rows and not target.labelled[test].any()]
    if unscored:
        found.append(f"No test row has a label of {', '.join(unscored)}: trained on, and not scored.")
    uncertain = [name for name, target in targets.items() if 0 < target.labelled[val].sum() < _FEW_LABELS]
    if uncertain:
        found.append(
            f"Fewer than {_FEW_LABELS} validation rows have a label of {first_names(uncertain)}: a noise that is fitted on "
            "them is a guess, and so are intervals and NLL."
        )
    found += warning_of_leaks(inputs, targets, train)
    return found + warning_of_copies(inputs, targets, rows)
