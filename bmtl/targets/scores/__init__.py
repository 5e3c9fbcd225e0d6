"""The scores that families have, one kind of target a file."""
