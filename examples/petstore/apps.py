from __future__ import annotations

from django.apps import AppConfig


class PetstoreConfig(AppConfig):
    """A pet store: a second domain that uses the log and the read models as any other project would."""

    name = "examples.petstore"
    label = "petstore"
    verbose_name = "Pet store"
    default_auto_field = "django.db.models.BigAutoField"
