"""Read models over HTTP, for operators."""
