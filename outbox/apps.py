from __future__ import annotations

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """The commit-ordered log of events and its subscribers."""

    name = "outbox"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from operations import overview
        from operations.life.sources import register as life_register
        from operations.long_actions import kinds
        from operations.metrics import SCRAPED
        from operations.troubles import sources
        from outbox import checks, tiles  # noqa: F401 - the checks register themselves
        from outbox.conf import kafka_settings, outbox_settings
        from outbox.consuming.collector import ConsumerCollector
        from outbox.consuming.conf import consumer_settings
        from outbox.consuming.life import ConsumedLife
        from outbox.consuming.operation import RedriveConsumed
        from outbox.consuming.troubles import ConsumedDeadLetters
        from outbox.life import DeliveriesLife, LogLife
        from outbox.metrics import OutboxCollector
        from outbox.readiness import relay_register
        from outbox.replays import ReplayDeliveries
        from outbox.troubles import DeadDeliveries

        # A bad setting stops the start, not the first use.
        outbox_settings()
        kafka_settings()
        consumer_settings()
        relay_register()
        overview.register("Log", tiles.log, permission="outbox.view_subscription", order=20)
        SCRAPED.register(OutboxCollector())
        SCRAPED.register(ConsumerCollector())
        kinds.register(ReplayDeliveries())
        kinds.register(RedriveConsumed())
        sources.register(DeadDeliveries())
        sources.register(ConsumedDeadLetters())
        for source in (LogLife(), DeliveriesLife(), ConsumedLife()):
            life_register(source)
