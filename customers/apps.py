from __future__ import annotations

from django.apps import AppConfig


class CustomersConfig(AppConfig):
    """The customer catalogue and its synchronisation with integrations."""

    name = "customers"
    verbose_name = "Customers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from customers.consistency.fixing import FixConsistency
        from customers.reconciling import admin as differences  # noqa: F401 - registers itself
        from customers.reconciling.accepted import RepairAccepted
        from customers.reconciling.kinds import ImportRemote, Reconcile
        from customers.reconciling.troubles import proposals_register
        from customers.sagas import admin as saga_admin  # noqa: F401 - registers itself
        from customers.sagas.conf import saga_settings
        from customers.sagas.life import SagaLife
        from customers.sagas.troubles import troubles_register as saga_troubles_register
        from customers.stripe.readiness import stripe_register
        from customers.sync import admin  # noqa: F401 - registers itself
        from customers.sync.conf import sync_settings
        from customers.sync.life import SyncLife, WebhooksLife
        from customers.sync.tiles import tile_register
        from customers.sync.troubles import troubles_register
        from customers.sync.trying_again import RetryFailedSyncs
        from operations.aggregate_pages import aggregate_page_register
        from operations.life.sources import register
        from operations.long_actions import kinds

        aggregate_page_register("customer", "admin:customers_customer_change")
        # A bad setting stops the start, not the first use.
        saga_settings()
        sync_settings()
        stripe_register()
        tile_register()
        troubles_register()
        proposals_register()
        for kind in (RetryFailedSyncs(), Reconcile(), ImportRemote(), RepairAccepted(), FixConsistency()):
            kinds.register(kind)
        saga_troubles_register()
        register(SagaLife())
        register(SyncLife())
        register(WebhooksLife())
