"""Programs that take targets of one kind only."""

from collections.abc import Mapping


def check_alike(kinds: Mapping[str, str], what: str) -> None:
    """Refuses targets of several kinds.

    Args:
        kinds: Target -> what has to be equal, in words.
        what: What needs it, as a sentence without a full stop.

    Raises:
        ValueError: If targets differ; names the first of each kind.
    """
    first: dict[str, str] = {}
    for name, kind in kinds.items():
        first.setdefault(kind, name)
    if len(first) > 1:
        named = "; ".join(f"{name!r} has {kind}" for kind, name in first.items())
        raise ValueError(f"{what}, and {named}. Take targets of one kind, or another method.")
