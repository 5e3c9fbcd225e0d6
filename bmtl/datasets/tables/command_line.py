"""How an option of the reader is written on the command line, for messages that say what to do."""

import shlex


def option(name: str, *items: str, of: str | None = None) -> str:
    """``-d name=item,item``, or ``-d name=of:item``, quoted as a shell and the command line need it.

    Args:
        name: The option.
        *items: Its items.
        of: The target or column that they are for.
    """
    text = ",".join(map(_item, items)) if of is None else f"{_item(of)}:{','.join(items)}"
    return f"-d {shlex.quote(f'{name}={text}')}"


def _item(name: str) -> str:
    """Commas, colons and brackets in a name would divide it."""
    return f'"{name}"' if any(mark in name for mark in ",:()") else name
