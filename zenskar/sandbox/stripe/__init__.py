"""A Stripe of our own: customers, events and webhooks as Stripe documents them, kept on this machine.

For development, demonstration and tests. ``StripeSandbox`` is the core, mounted in process; ``StripeSandboxServer``
serves it over HTTP on the loopback interface; ``python -m zenskar.sandbox.stripe`` runs that server.
"""
