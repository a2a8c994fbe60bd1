"""Idempotency keys: one key means one effect and one answer, however often and at whatever moment a request comes."""
