"""Troubles: everything that needs a person, whatever app it is of, in one place and one way."""
