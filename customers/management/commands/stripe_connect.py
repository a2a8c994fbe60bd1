"""``manage.py stripe_connect``: is Stripe set up right, and where do its webhooks go."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from customers.integrations import IntegrationError
from customers.stripe.conf import stripe_settings
from customers.stripe.connecting import account_check, endpoint_register, permissions_check


class Command(BaseCommand):
    """Checks key, mode and permissions; with --url registers the webhook endpoint and pins its API version."""

    help = "Check the Stripe key, its mode and permissions; with --url register the webhook endpoint."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--url", help="public address of this service, or of its webhooks, such as https://crm.example.com"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            config = stripe_settings()
            address = _address(options["url"]) if options["url"] else ""
            account = account_check(config)
            permissions_check(config, with_webhooks=bool(address))
            mode = "LIVE: real customers" if config.livemode else "test"
            self.stdout.write(f"Account {account or 'unknown (the key may not read it)'}, mode {mode}.")
            self.stdout.write("The key may read and write customers and read subscriptions.")
            self.stdout.write(f"API version {config.api_version}.")
            if not address:
                if not config.webhook_secrets:
                    self.stdout.write("STRIPE_WEBHOOK_SECRET is not set: register an endpoint with --url.")
                return
            endpoint = endpoint_register(config, address)
        except (IntegrationError, ImproperlyConfigured) as exc:
            raise CommandError(str(exc).splitlines()[0]) from exc
        if endpoint.secret:
            self.stdout.write(f"Registered {endpoint.id} at {address}.")
            self.stdout.write("Add its secret to STRIPE_WEBHOOK_SECRET (several, with commas); it is shown only now:")
            self.stdout.write(endpoint.secret)
        else:
            self.stdout.write(f"{endpoint.id} at {address} was registered before; {endpoint.note}.")


def _address(url: str) -> str:
    """The webhook address of a service's address; an address that has a path is taken as it is."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandError("--url must be an address such as https://crm.example.com.")
    return url if parts.path.strip("/") else f"{parts.scheme}://{parts.netloc}/webhooks/stripe"
