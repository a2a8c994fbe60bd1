"""Protected changes: a change of a customer that happens here and in every integration, or nowhere.

Each is a saga: a row with its steps, advanced by whoever holds its lease. The integrations come first, then the row
here, its event and the base in one transaction; so nobody, here or downstream, ever sees a customer that an
integration refused. What was sent before a refusal is undone. See ``docs/protected-changes.md``.
"""
