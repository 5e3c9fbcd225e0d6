"""The scores that families have, one kind of target per file."""
