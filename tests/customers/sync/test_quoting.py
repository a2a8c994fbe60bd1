"""What an integration says against a request is kept and shown without what it quotes of a person."""

from __future__ import annotations

import traceback

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from customers.integrations import IntegrationError, PermanentError, RetryableError
from customers.models import SyncRequest, SyncState
from customers.services import customer_create
from customers.sync.quoting import quoting_nothing, text_unquoted
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16", "C12")]

NAME, EMAIL = "Zuzanna Quimby", "zuzanna@example.com"


def planted(side: Side, error: IntegrationError) -> SyncState:
    customer = customer_create(name=NAME, email=EMAIL, metadata={"note": "lives by the Vistula since 2019"})
    side.poke()

    def strike(call: Call) -> None:
        if call.method == "create":
            raise error

    side.world.before.append(strike)
    side.sync(customer)
    return side.state(customer)


@pytest.mark.parametrize("kind", [PermanentError, RetryableError])
def test_a_kept_error_quotes_nothing_that_was_sent(side: Side, kind: type[IntegrationError]) -> None:
    said = f"Invalid email address: {EMAIL}; '{NAME}' and lives by the Vist...tula since 2019 were refused"

    state = planted(side, kind(said, code="refused"))

    assert state.last_error_code == "refused"
    assert state.last_error_message == "Invalid email address: •••; '•••' and •••...••• were refused"


def test_no_page_shows_a_person_whom_an_error_quoted(side: Side) -> None:
    state = planted(side, PermanentError(f"{NAME} <{EMAIL}> is refused", code="refused"))
    limited = User.objects.create_user("limited", is_staff=True)
    limited.user_permissions.set(
        Permission.objects.filter(codename__startswith="view_").exclude(codename="view_customer")
    )
    client = Client()
    client.force_login(limited)
    request = SyncRequest.objects.get()
    group = reverse("console-trouble-group", query={"source": "syncs", "group": "memory|failed|permanent|refused"})
    addresses = [
        reverse("admin:customers_syncstate_change", args=[state.pk]),
        reverse("admin:customers_syncrequest_change", args=[request.pk]),
        reverse("console-troubles"),
        group,
    ]

    pages = [client.get(address) for address in addresses]

    assert [page.status_code for page in pages] == [200] * 4
    assert ["is refused" in page.content.decode() for page in pages] == [True] * 4
    assert [page for page in pages if "Quimby" in page.content.decode() or EMAIL in page.content.decode()] == []


@pytest.mark.parametrize(
    ("text", "values", "left"),
    [
        ("No such customer: 'cus_1'", ["us", "such a one"], "No such customer: 'cus_1'"),
        ("Invalid string: Li", ["Li"], "Invalid string: •••"),
        ("Invalid value: " + "x" * 100, ["x" * 501], "Invalid value: •••"),
        ("write to a.b+c@example.co.uk.", [], "write to •••"),
        ("nothing", ["", "n"], "nothing"),
        ("a (b) [c", ["a (b) [c"], "•••"),
        ("ADA LOVELACE of Turin", ["Ada Lovelace", "turin"], "••• of •••"),
        ("it is not in Italy", ["IT", "IN", "NOT"], "it is not in Italy"),
        ("ada lovelace of tur", ["Ada Lovelace of Turin"], "•••"),
    ],
)
def test_it_takes_out_what_was_sent_whole_or_cut(text: str, values: list[str], left: str) -> None:
    assert text_unquoted(text, values) == left


@pytest.mark.parametrize("filler", ["x", "x ", "x@", "@"])
def test_it_reads_the_beginning_alone_of_a_page_for_an_answer(filler: str) -> None:
    said = f"{NAME} <{EMAIL}> {filler * 1_000_000}"[:1_000_000]

    left = text_unquoted(said, [NAME, EMAIL])

    assert left.startswith("•••")
    assert len(left) < 16_000
    assert (NAME in left, EMAIL in left) == (False, False)


def test_it_leaves_nothing_of_a_value_that_its_cut_halved() -> None:
    said = "-" * 15_993 + NAME + "-" * 1_000

    left = text_unquoted(said, [NAME])

    assert set(left) == {"-"}


def test_no_traceback_prints_what_the_error_was_made_from() -> None:
    with pytest.raises(PermanentError) as caught, quoting_nothing():
        try:
            raise ValueError(f"no such address: {EMAIL}")
        except ValueError as exc:
            raise PermanentError(str(exc)) from exc

    assert EMAIL not in "".join(traceback.format_exception(caught.value))


def test_what_was_sent_stays_in_its_row(side: Side) -> None:
    planted(side, PermanentError(f"{NAME} is refused", code="refused"))

    with connection.cursor() as cursor:
        cursor.execute("SELECT body::text FROM customers_syncrequest")
        assert NAME in cursor.fetchone()[0]
