"""The life of one thing: everything that happened to it, from every app, in the order of time."""
