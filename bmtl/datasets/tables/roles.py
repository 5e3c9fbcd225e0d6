"""Which column of a table is what."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bmtl.datasets.checks import meant
from bmtl.datasets.tables.column import RawTable, names_of, spelled
from bmtl.datasets.tables.features import FEATURES
from bmtl.datasets.tables.kinds import KindLike
from bmtl.targets.names import check_name, file_name


@dataclass(frozen=True)
class Roles:
    """The roles of the columns of a table.

    Attributes:
        targets: Target -> its columns: one, or the components of a vector.
        events: Target of times to an event -> the column that says whether it was observed.
        features: Every column without another use.
        split: Column of a fixed split.
        groups: Column of what must not be parted.
        target_kinds: Target -> kind, where it is given.
        renamed: Name of a column or vector -> what the target is called, where a results file cannot hold the name.
        feature_kinds: Feature -> "number", "date" or "category", where it is given.
    """

    targets: Mapping[str, tuple[str, ...]]
    events: Mapping[str, str]
    features: tuple[str, ...]
    split: str | None
    groups: str | None
    target_kinds: Mapping[str, KindLike]
    feature_kinds: Mapping[str, str]
    renamed: Mapping[str, str]

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Names of all columns that hold labels."""
        return tuple(column for columns in self.targets.values() for column in columns)


def find_roles(
    table: RawTable,
    *,
    targets: str | Sequence[str],
    ignore: str | Sequence[str] = (),
    split: str | None = None,
    groups: str | None = None,
    kinds: KindLike | Mapping[str, KindLike] | None = None,
    events: Mapping[str, str] | None = None,
    vectors: Mapping[str, str | Sequence[str]] | None = None,
) -> Roles:
    """The use of each column, from the options of a reader.

    Args:
        table: The columns.
        targets: Names of columns of labels, or of vectors.
        ignore: Columns to leave out.
        split: Column of a fixed split.
        groups: Column of what must not be parted.
        kinds: Of targets and features, by name; one alone is of all targets.
        events: Target -> column that says whether its event was observed. It is a target without being among `targets` too.
        vectors: Target -> its columns, joined by ``+`` or as a list. It is a target without being among `targets` too.

    Raises:
        ValueError: If there is no such column, one has two uses, no target or no feature is left, or an option names
            something else than a target or column.
    """
    components = {spelled(name): _parts(columns) for name, columns in (vectors or {}).items()}
    events = {spelled(target): spelled(column) for target, column in (events or {}).items()}
    split, groups = (None if name is None else spelled(name) for name in (split, groups))
    wanted = list(dict.fromkeys([*map(spelled, names_of(targets)), *events, *components]))
    if len(table.columns) == 1:
        raise ValueError(
            f"{table.source} has the one column {next(iter(table.columns))!r}. Is it delimited by something else than , ; | "
            "or a tab?"
        )
    if not wanted:
        raise ValueError(
            f"Name the columns of {table.source} that are targets: targets=..., as in -d "
            f"targets={list(table.columns)[-1]}. Its columns are: {', '.join(table.columns)}."
        )
    columns = {target: components.get(target, (target,)) for target in wanted}
    for target, own in columns.items():
        if len(own) < 2 and target in components:
            raise ValueError(f"The vector {target!r} has two columns or more, as in vectors={target}:u+v; got {own!r}.")
    uses = [(f"the target {target!r}", column) for target, own in columns.items() for column in own]
    uses += [(f"the event of {target!r}", column) for target, column in events.items()]
    uses += [(what, name) for what, name in (("split", split), ("groups", groups)) if name is not None]
    uses += [("ignore", spelled(name)) for name in names_of(ignore)]
    used: dict[str, str] = {}
    for what, name in uses:
        table.column(name, what)
        if used.setdefault(name, what) != what:
            raise ValueError(
                f"The column {name!r} of {table.source} is given as {used[name]} and as {what}. Choose one."
            )
    features = tuple(name for name in table.columns if name not in used)
    if not features:
        raise ValueError(f"{table.source} has no column of features besides {', '.join(used)}.")
    if isinstance(kinds, Mapping):
        by_name = {spelled(name): kind for name, kind in kinds.items()}
    else:
        by_name = {} if kinds is None else dict.fromkeys(columns, kinds)
    _check_kinds(by_name, columns, features)
    called = {target: check_name("target", file_name(target)) for target in columns}
    if len(set(called.values())) < len(called):
        raise ValueError(
            f"Two of the targets {', '.join(columns)} are called alike where a slash is written as _. Rename a column."
        )
    return Roles(
        targets={called[target]: own for target, own in columns.items()},
        events={called[target]: column for target, column in events.items()},
        features=features,
        split=split,
        groups=groups,
        target_kinds={called[name]: kind for name, kind in by_name.items() if name in columns},
        feature_kinds={name: str(kind) for name, kind in by_name.items() if name in features},
        renamed={target: name for target, name in called.items() if target != name},
    )


def _parts(columns: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(map(spelled, columns.split("+") if isinstance(columns, str) else columns))


def _check_kinds(kinds: Mapping[str, KindLike], targets: Iterable[str], features: Iterable[str]) -> None:
    known = [*targets, *features]
    for name, kind in kinds.items():
        if name not in known:
            raise ValueError(f"kinds names {name!r}, which is no target and no feature.{meant(name, known)}")
        if name in features and kind not in FEATURES:
            raise ValueError(
                f"A feature is of the kind {', '.join(FEATURES)}; got {kind!r} for {name!r}. If it is a target, name "
                "it in targets."
            )
