"""The operators' API, beside that of the database."""
