"""Raw tables: files and data frames as columns, and columns as features and labels."""
