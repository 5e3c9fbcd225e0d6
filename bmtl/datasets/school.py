"""School: exam scores of 15,362 pupils in 139 secondary schools in London, each school a task.

Source: the Inner London Education Authority's study of 1985 to 1987 in the form of multi-task learning's papers (27 features
of pupil, school and year). Bakker & Heskes (2003) score it by the explained variance on a quarter of each school's pupils.
1,837 pupils repeat another row exactly, so that some test rows are among the training rows too.
"""

from pathlib import Path

from bmtl.datasets.files import Archive, find
from bmtl.datasets.many_tasks import assemble
from bmtl.datasets.multi_task_data import MultiTaskData

FILE = "school/school.npz"
FEATURES = 27  # after them comes a constant 1

CITATION = (
    "Inner London Education Authority, as in B. Bakker, T. Heskes, Task Clustering and Gating for Bayesian Multitask "
    "Learning, JMLR 4, 2003."
)
LICENCE = "None stated."
SOURCE = (
    "Put into it the arrays X (N, 28), y (N,) and task (N,), the number of each row's school from 0, from data/school.mat "
    "of https://github.com/jiayuzhou/MALSAR (commit fb9751594983). The SHA-256 of our file is "
    "2a850ebbcfbb9e5c3493352d392ef36c9bb450a2b3de65e782003c71f2933759."
)


def read(
    root: str | Path | None = None, *, proportion: float = 0.75, validation: float = 0.2, seed: int = 0
) -> MultiTaskData:
    """The pupils, in parts that are drawn within each school.

    Args:
        root: Folder of the data; the default is what the environment variable ``BMTL_DATA`` says.
        proportion: Of each school's pupils that are not for testing.
        validation: Proportion of those that are for validation.
        seed: Seed of all random draws.

    Raises:
        FileNotFoundError: If `root` does not hold the file.
        ValueError: If a proportion is out of range.
    """
    archive = Archive(find("school", [FILE], root, SOURCE))
    task = archive.array("task")
    return assemble(
        "school",
        archive.array("X")[:, :FEATURES],
        archive.array("y"),
        task=task,
        task_names=[f"school_{number}" for number in range(int(task.max()) + 1)],
        proportion=proportion,
        validation=validation,
        seed=seed,
        units="points",
        citation=CITATION,
        licence=LICENCE,
    )
