"""django-reliable-outbox: ordered by key; its worker command with four threads."""

from project import PAYLOAD, django_project, events, measured, settle, take  # noqa: F401

django_project("reliable_outbox", RELIABLE_OUTBOX={"BATCH_SIZE": 100, "NOTIFY": False, "POLL_INTERVAL": 0.05})

from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from reliable_outbox import handler, publish  # noqa: E402


@handler("customer.updated")
def into_nothing(envelope):
    take(envelope.payload)


with transaction.atomic():
    for key, _, payload in events():
        publish("customer.updated", payload, key=key)
settle()


def drain():
    from project import counts
    from reliable_outbox.models import OutboxMessage

    # A burst ends when nothing is due now, which is so for a moment when all keys are in other threads' hands.
    while counts["events"] < OutboxMessage.objects.count():
        call_command("outbox_worker", concurrency=4, burst=True)


measured(drain)
