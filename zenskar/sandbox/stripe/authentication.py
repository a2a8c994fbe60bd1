"""Which key may do what. Source: docs.stripe.com/keys, docs.stripe.com/api/authentication."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping

from zenskar.sandbox.stripe.errors import LiveKeyRefused, StripeError

_TEST_KEYS = ("sk_test_", "rk_test_")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="Stripe"'}


class KeyRing:
    """The secret key and the restricted ones.

    Arguments: ``restricted`` maps a key to permissions such as ``customer_read``; write includes read. Raises
    LiveKeyRefused for anything but test keys.
    """

    def __init__(self, api_key: str, restricted: Mapping[str, set[str]] | None = None) -> None:
        for key in (api_key, *(restricted or {})):
            if not key.startswith(_TEST_KEYS):
                raise LiveKeyRefused("The sandbox takes test keys only: sk_test_… or rk_test_….")
        self._api_key = api_key
        self._restricted = dict(restricted or {})

    def opens(self, headers: Mapping[str, str]) -> bool:
        """Whether lower-cased ``headers`` carry the full key."""
        given = _key_of(headers)
        return given is not None and secrets.compare_digest(given.encode(), self._api_key.encode())

    def key(self, headers: Mapping[str, str]) -> str:
        """The known key in ``headers``; raises StripeError 401."""
        given = _key_of(headers)
        if given is None:
            raise StripeError(
                401,
                "You did not provide an API key. You need to provide your API key in the Authorization header, using "
                "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See "
                "https://stripe.com/docs/api#authentication for details, or we can help at https://support.stripe.com/.",
                headers=_CHALLENGE,
            )
        if not self.opens(headers) and given not in self._restricted:
            masked = f"{given[:8]}{'*' * 8}{given[-4:]}" if len(given) > 16 else "*" * 8
            raise StripeError(401, f"Invalid API Key provided: {masked}", headers=_CHALLENGE)
        return given

    def permit(self, key: str, *, method: str, permission: str, account_id: str) -> None:
        """Raise StripeError 403 unless ``key`` may read (GET) or write what ``permission`` names."""
        allowed = self._restricted.get(key)
        needed = f"{permission}_{'read' if method == 'GET' else 'write'}"
        if allowed is not None and not {needed, f"{permission}_write"} & allowed:
            raise StripeError(
                403,
                f"The provided key '{key[:8]}{'*' * 8}' does not have the required permissions for this endpoint on "
                f"account '{account_id}'. Having the 'rak_{needed}' permission would allow this request to continue.",
            )


def _key_of(headers: Mapping[str, str]) -> str | None:
    """The key of Bearer or Basic authentication."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value or None
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None
