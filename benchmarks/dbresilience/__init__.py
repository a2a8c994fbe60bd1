"""What our backend costs beside Django's: ``python -m benchmarks.dbresilience``."""
