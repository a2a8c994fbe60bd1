"""The rules that a customer's values obey, one for the API and the import alike.

Values that come from an integration do not pass here: accounts hold customers that these rules would refuse, and they
are kept as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from customers.emails import email_normalised
from customers.errors import InvalidCustomer
from operations.errors import FieldError

NAME_LONGEST: Final = 256
PHONE_LONGEST: Final = 20
ADDRESS_KEYS: Final = ("line1", "line2", "city", "state", "postal_code", "country")
ADDRESS_LONGEST: Final = 256
METADATA_KEYS_MOST: Final = 49  # Stripe takes 50, of which one is ours.
METADATA_KEY_LONGEST: Final = 40
METADATA_VALUE_LONGEST: Final = 500
# The key under which an integration keeps our customer's id; a constraint of the table holds it as well.
METADATA_KEY_OURS: Final = "zenskar_id"

# C0, C1 and DEL: nothing that a person types, and the stuff of forged log lines and mail headers.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
# PostgreSQL stores no NUL, and UTF-8 has no lone surrogates.
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}\Z")


class _Refused(Exception):
    def __init__(self, code: str, detail: str, pointer: str = "") -> None:
        super().__init__(detail)
        self.error = FieldError(pointer=pointer, code=code, detail=detail)


class _ManyRefused(Exception):
    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__()
        self.errors = errors


def customer_values(
    raw: object, *, required: Collection[str] = (), ignored: Collection[str] = (), new: bool = False
) -> dict[str, Any]:
    """The fields in ``raw`` as a customer keeps them; fields that are not there are left out.

    Args:
        raw: what the client sent, parsed.
        required: fields that must be there, though they may be null.
        ignored: other fields that may be there and say nothing.
        new: whether it is a new customer, which must have a name or an e-mail.

    Raises:
        InvalidCustomer: with every value that is not valid.
    """
    if not isinstance(raw, Mapping):
        raise InvalidCustomer([FieldError(code="invalid_type", detail="A customer is a JSON object.")])
    errors = [
        FieldError(pointer=f"/{field}", code="required_field", detail="This field is required.")
        for field in required
        if field not in raw
    ]
    values: dict[str, Any] = {}
    for field, value in raw.items():
        rule = _RULES.get(field)
        if rule is None:
            if field not in ignored:
                detail = "There is no such field, or it cannot be set."
                errors.append(FieldError(pointer=f"/{_token(field)}", code="unknown_field", detail=detail))
            continue
        try:
            values[field] = rule(value)
        except _Refused as exc:
            errors.append(FieldError(pointer=f"/{field}", code=exc.error.code, detail=exc.error.detail))
        except _ManyRefused as exc:
            errors += exc.errors
    if new and not errors and values.get("name") is None and values.get("email") is None:
        detail = "A new customer needs a name or an e-mail."
        errors = [FieldError(pointer=f"/{field}", code="required_field", detail=detail) for field in ("name", "email")]
    if errors:
        raise InvalidCustomer(errors)
    return values


def _name(value: object) -> str | None:
    return None if value is None else _line(value, NAME_LONGEST)


def _phone(value: object) -> str | None:
    return None if value is None else _line(value, PHONE_LONGEST)


def _email(value: object) -> str | None:
    if value is None:
        return None
    text = _text(value)
    try:
        return email_normalised(text)
    except ValueError as exc:
        raise _Refused("invalid_email", str(exc)) from exc


def _address(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _Refused("invalid_type", "An address is a JSON object, or null.")
    found: dict[str, str] = {}
    errors = []
    for key, part in value.items():
        try:
            if key not in ADDRESS_KEYS:
                raise _Refused("unknown_field", f"An address has only {', '.join(ADDRESS_KEYS)}.")
            if part is None:
                continue
            text = _line(part, ADDRESS_LONGEST)
            if key == "country":
                if not _COUNTRY.match(text):
                    raise _Refused("invalid_country", "A country is its two-letter code (ISO 3166-1 alpha-2).")
                text = text.upper()
            found[key] = text
        except _Refused as exc:
            errors.append(FieldError(pointer=f"/address/{_token(key)}", code=exc.error.code, detail=exc.error.detail))
    if errors:
        raise _ManyRefused(errors)
    return found


def _metadata(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _Refused("invalid_type", "Metadata is a JSON object of strings.")
    if len(value) > METADATA_KEYS_MOST:
        raise _Refused("too_many_keys", f"Metadata has at most {METADATA_KEYS_MOST} keys.")
    errors = []
    for key, text in value.items():
        try:
            _metadata_pair(key, text)
        except _Refused as exc:
            errors.append(FieldError(pointer=f"/metadata/{_token(key)}", code=exc.error.code, detail=exc.error.detail))
    if errors:
        raise _ManyRefused(errors)
    return dict(value)


def _metadata_pair(key: str, value: object) -> None:
    if not 1 <= len(key) <= METADATA_KEY_LONGEST:
        raise _Refused("invalid_key", f"A metadata key has 1 to {METADATA_KEY_LONGEST} characters.")
    if "[" in key or "]" in key or _CONTROL.search(key) or _UNSTORABLE.search(key):
        raise _Refused("invalid_key", "A metadata key has no square brackets and no control characters.")
    if key == METADATA_KEY_OURS:
        raise _Refused("reserved_key", "This metadata key is ours: integrations keep the customer's id under it.")
    text = _text(value)
    if not text:
        raise _Refused("required_field", "A metadata value is not empty; leave its key out.")
    if len(text) > METADATA_VALUE_LONGEST:
        raise _Refused("too_long", f"A metadata value has at most {METADATA_VALUE_LONGEST} characters.")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Refused("invalid_type", "This must be a string.")
    if _UNSTORABLE.search(value):
        raise _Refused("invalid_characters", "NUL and lone surrogates cannot be stored.")
    return value


def _line(value: object, longest: int) -> str:
    """One line of text, trimmed and in the composed form of Unicode, so that what looks alike is alike."""
    text = _text(value).strip()
    if _CONTROL.search(text):
        raise _Refused("invalid_characters", "Control characters are not allowed.")
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if not text:
        raise _Refused("required_field", "This must not be empty; null says that there is none.")
    if len(text) > longest:
        raise _Refused("too_long", f"This has at most {longest} characters.")
    return text


def _token(key: str) -> str:
    """One reference token of a JSON pointer (RFC 6901), of a length fit for an answer."""
    return _UNSTORABLE.sub("\ufffd", key[:100]).replace("~", "~0").replace("/", "~1")


_RULES: Final[dict[str, Callable[[object], Any]]] = {
    "name": _name,
    "email": _email,
    "phone": _phone,
    "address": _address,
    "metadata": _metadata,
}
FIELDS: Final = tuple(_RULES)
