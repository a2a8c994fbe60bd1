"""The form in which an e-mail address is kept, so that two spellings of one address are one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

LONGEST: Final = 254
"""Characters of an address that mail can be sent to (RFC 5321, limit of a path)."""

_PLAIN_LOCAL: Final = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*\Z")
_OUTSIDE_ASCII: Final = re.compile(r"[^\x00-\x7f]+")


def email_normalised(text: str) -> str:
    """The address as it is kept: trimmed, the domain in lower case, the rest in the case that was given.

    Letters outside ASCII are lowered too: PostgreSQL's ``lower()``, which makes e-mails unique in any case, knows them
    in some locales only.

    Raises:
        ValueError: not an address that mail can be sent to; the message says why and is fit to be shown.
    """
    text = text.strip()
    if len(text) > LONGEST:
        raise ValueError(f"An e-mail has at most {LONGEST} characters.")
    local, at, domain = text.partition("@")
    if at and _PLAIN_LOCAL.match(local) and domain.isascii():
        # Nearly all addresses; the full check costs fifteen times as much, most of it for the domain.
        found = f"{local}@{_domain_normalised(domain)}"
        if len(found) <= LONGEST:
            return found
    normalised: str = _checked(text).normalized
    return _OUTSIDE_ASCII.sub(lambda match: match[0].lower(), normalised)


def email_with_ascii_domain(text: str) -> str:
    """The address with its domain as mail servers and many an API want it: ``a@bücher.example`` is
    ``a@xn--bcher-kva.example`` (IDNA 2008). What is no address stays as it is."""
    local, at, domain = text.rpartition("@")
    return text if not at or domain.isascii() else f"{local}@{_domain_ascii(domain)}"


def email_with_unicode_domain(text: str) -> str:
    """The same address as people write it, and as it is kept here; of two spellings of one domain comes one."""
    local, at, domain = text.rpartition("@")
    return f"{local}@{_domain_unicode(domain)}" if at and "xn--" in domain.lower() else text


@lru_cache(maxsize=4096)
def _domain_ascii(domain: str) -> str:
    try:
        return str(_checked(f"a@{domain}").ascii_domain)
    except ValueError:
        return domain


@lru_cache(maxsize=4096)
def _domain_unicode(domain: str) -> str:
    try:
        found = str(_checked(f"a@{domain}").domain)
    except ValueError:
        return domain
    # Only what leads back: nothing may be lost on the way.
    return found if _domain_ascii(found) in (domain.lower(), found) else domain


@lru_cache(maxsize=4096)
def _domain_normalised(domain: str) -> str:
    return str(_checked(f"a@{domain}").domain)


def _checked(text: str) -> ValidatedEmail:
    try:
        # The domain is not looked up: what is valid must not depend on the network. Domains under .test are for tests.
        return validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as exc:
        raise ValueError(str(exc)) from exc
