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


@lru_cache(maxsize=4096)
def _domain_normalised(domain: str) -> str:
    return str(_checked(f"a@{domain}").domain)


def _checked(text: str) -> ValidatedEmail:
    try:
        # The domain is not looked up: what is valid must not depend on the network. Domains under .test are for tests.
        return validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError as exc:
        raise ValueError(str(exc)) from exc
