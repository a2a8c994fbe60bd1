from __future__ import annotations

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given, settings
from hypothesis import strategies as st

from customers.emails import email_normalised

pytestmark = pytest.mark.feature("A16", "C3")

LOCALS = st.text(alphabet='aZ0._+-!ä@ "', max_size=70)
DOMAINS = st.text(alphabet="aZ0.-_ä@ ", max_size=8).map(lambda text: text + "Example.COM") | st.sampled_from(
    [
        "a.test",
        "localhost",
        "",
        "x.local",
        "[127.0.0.1]",
        "xn--a.com",
        "b.com.",
        "y" * 63 + ".com",
        ("y" * 60 + ".") * 4 + "com",
    ]
)


@given(local=LOCALS, domain=DOMAINS)
@settings(max_examples=300, database=None, derandomize=True, deadline=None)
def test_it_takes_what_the_full_check_takes(local: str, domain: str) -> None:
    """The short cut for plain addresses changes no outcome."""
    text = f"{local}@{domain}".strip()
    try:
        expected = validate_email(text, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError:
        expected = None

    try:
        found = email_normalised(text)
    except ValueError:
        found = None

    assert (found or "").lower() == (expected or "").lower()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" John.Doe@EXAMPLE.com\n", "John.Doe@example.com"),
        ("ÄÖ@Exämple.de", "äö@exämple.de"),
        ("a\u0308B@example.com", "äB@example.com"),
        ("x@mail.test", "x@mail.test"),
    ],
)
def test_it_keeps_one_form_of_an_address(text: str, kept: str) -> None:
    assert email_normalised(text) == kept
