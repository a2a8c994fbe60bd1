"""django-domain-events: one delivery a transaction, in no order."""

import logging
from dataclasses import dataclass

from project import django_project, events, measured, settle, take

logging.disable(logging.CRITICAL)
django_project(
    "django_domain_events",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    DJANGO_DOMAIN_EVENTS={"BATCH_SIZE": 500, "WAKE": "poll"},
)

from django.db import transaction  # noqa: E402
from django_domain_events import DURABLE, deliver_pending, event, fire, receiver  # noqa: E402


@event(name="customer.updated")
@dataclass(frozen=True, slots=True)
class CustomerUpdated:
    key: str
    number: int
    rest: str


@receiver(CustomerUpdated, mode=DURABLE, key="into_nothing")
def into_nothing(evt: CustomerUpdated) -> None:
    take({"key": evt.key, "number": evt.number})


with transaction.atomic():
    for key, number, payload in events():
        fire(CustomerUpdated(key=key, number=number, rest=str(payload)[:490]))
settle()
measured(lambda: deliver_pending(batch_size=500))
