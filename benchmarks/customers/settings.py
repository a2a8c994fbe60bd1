"""The product's settings, with the bare view beside the product's own addresses."""

from __future__ import annotations

from zenskar.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.customers.urls"
