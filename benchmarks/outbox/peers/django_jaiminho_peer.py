"""django-jaiminho: one stream in order, one event and transaction at a time."""

import logging

from project import django_project, events, measured, settle, take

logging.disable(logging.CRITICAL)
django_project("jaiminho", JAIMINHO_CONFIG={"PUBLISH_STRATEGY": "keep-order", "DEFAULT_CAPTURE_EXCEPTION": None})

from django.db import transaction  # noqa: E402
from jaiminho.relayer import EventRelayer  # noqa: E402
from jaiminho.send import save_to_outbox_stream  # noqa: E402

publish = save_to_outbox_stream("customers", "keep-order")(take)
with transaction.atomic():
    for _, _, payload in events():
        publish(payload)
settle()
measured(lambda: EventRelayer().relay(stream="customers"))
