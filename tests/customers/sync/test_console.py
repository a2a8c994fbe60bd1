"""The console's pages of the synchronisation: seen, searched, acted upon, never edited; fast on many rows."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from customers.models import Conflict, Customer, Drift, SyncRequest, SyncState, Webhook
from customers.services import customer_update
from operations.models import AuditEntry
from tests.customers.sync.conftest import Side

pytestmark = [pytest.mark.django_db, pytest.mark.feature("F3")]

PAGES = ("syncstate", "syncrequest", "conflict", "webhook", "syncaccount")

# Serves the test of the large list: rows in one statement.
FILL_SQL = """
INSERT INTO customers_syncstate (integration, account, livemode, remote_id, status, dirty_at)
SELECT 'memory', '', false, 'r' || n, CASE WHEN n %% 1000 = 0 THEN 'failed' ELSE 'in_sync' END, NULL
  FROM generate_series(1, %s) n
"""


def staff(role: str) -> Client:
    user = User.objects.create_user(f"a {role}", is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def staff_pages(role: str, addresses: list[str]) -> list[str]:
    client = staff(role)
    return [client.get(address).content.decode() for address in addresses]


def found_drift(customer: Customer) -> None:
    Drift.objects.create(
        integration="memory",
        livemode=False,
        kind=Drift.Kind.FIELD_DIFFERENCE,
        customer=customer,
        operation_id=1,
        subject=f"customer:{customer.pk}",
        facts_hash="0" * 64,
    )


@pytest.fixture
def filled(side: Side) -> Side:
    """A row of each kind."""
    customer = side.linked(name="Ada", email="ada@example.com")
    customer_update(customer_id=customer.pk, changes={"name": "Here"})
    side.world.edit(side.state(customer).remote_id or "", name="<b>There</b>")
    side.rest()
    return side


VALUES = {
    SyncState: "ada@example.com",
    SyncRequest: "ada@example.com",
    Webhook: "&lt;b&gt;There",
    Conflict: "&lt;b&gt;There",
}


@pytest.mark.feature("E9", "A16")
@pytest.mark.parametrize("model", VALUES)
def test_it_masks_values_for_those_who_may_not_read_them(filled: Side, model: type[Model]) -> None:
    word = VALUES[model]
    name = model._meta.model_name
    row = model._default_manager.earliest("id") if model is SyncRequest else model._default_manager.latest("id")
    address = reverse(f"admin:customers_{name}_change", args=[row.pk])
    listed = reverse(f"admin:customers_{name}_changelist")

    seen = {
        role: client.get(address).content.decode() + client.get(listed).content.decode()
        for role in ("viewer", "operator")
        for client in [staff(role)]
    }

    assert word in seen["operator"]
    assert word not in seen["viewer"]
    assert "•••" in seen["viewer"]


@pytest.mark.feature("A16")
def test_it_names_customers_to_those_alone_who_may_see_them(filled: Side) -> None:
    customer = Customer.objects.get()
    customer_update(customer_id=customer.pk, changes={"name": "Lovelace"})
    found_drift(customer)
    rows = [SyncState.objects.get(), Conflict.objects.get(), Drift.objects.get()]
    addresses = [reverse(f"admin:customers_{row._meta.model_name}_change", args=[row.pk]) for row in rows]
    addresses += [reverse(f"admin:customers_{row._meta.model_name}_changelist") for row in rows]
    limited = User.objects.create_user("limited", is_staff=True)
    rights = Permission.objects.filter(codename__startswith="view_").exclude(codename="view_customer")
    limited.user_permissions.set(rights)
    client = Client()
    client.force_login(limited)

    pages = [client.get(address).content.decode() for address in addresses]
    others = staff_pages("viewer", addresses)

    assert [str(customer.pk) in page for page in pages] == [True] * 6
    assert [page for page in pages if "Lovelace" in page] == []
    assert ["Lovelace</a>" in page for page in others] == [True] * 6


@pytest.mark.parametrize("page", PAGES)
def test_it_shows_lists_and_records_to_a_viewer(filled: Side, page: str) -> None:
    client = staff("viewer")

    listed = client.get(reverse(f"admin:customers_{page}_changelist"))
    pk = {"syncstate": SyncState, "syncrequest": SyncRequest, "conflict": Conflict, "webhook": Webhook}.get(page)
    number = pk.objects.latest("id").pk if pk else 1
    shown = client.get(reverse(f"admin:customers_{page}_change", args=[number])) if pk else listed

    assert (listed.status_code, shown.status_code) == (200, 200)
    assert b"<b>There" not in shown.content


@pytest.mark.parametrize("page", PAGES)
def test_it_lets_nobody_add_change_or_delete(filled: Side, admin_client: Client, page: str) -> None:
    add = admin_client.get(f"/admin/customers/{page}/add/")
    change = admin_client.post(f"/admin/customers/{page}/1/change/", {"status": "in_sync"})
    delete = admin_client.post(f"/admin/customers/{page}/1/delete/", {"post": "yes"})

    assert {add.status_code, change.status_code, delete.status_code} <= {403, 404}


def test_it_has_a_state_looked_at_again_and_writes_who_asked(filled: Side) -> None:
    state = SyncState.objects.get()
    url = reverse("admin:customers_syncstate_changelist")

    answer = staff("operator").post(url, {"action": "look_again", "_selected_action": [state.pk]}, follow=True)

    state.refresh_from_db()
    entry = AuditEntry.objects.get(action__startswith="syncstate.")
    assert answer.status_code == 200
    assert state.dirty_at is not None
    assert (entry.actor, entry.action, entry.target) == (
        "user:a operator",
        "syncstate.poked",
        f"syncstate:{state.pk}",
    )


def test_it_acts_for_nobody_without_the_permission(filled: Side) -> None:
    state = SyncState.objects.get()
    url = reverse("admin:customers_syncstate_changelist")
    data = {"action": "look_again", "_selected_action": [state.pk]}

    viewer = staff("viewer").post(url, data, follow=True)
    by_get = staff("operator").get(url, data)

    state.refresh_from_db()
    assert viewer.status_code in (200, 403)
    assert by_get.status_code == 400
    assert state.dirty_at is None
    assert not AuditEntry.objects.filter(action__startswith="syncstate.").exists()


@pytest.mark.parametrize(
    ("page", "query", "found"),
    [
        ("webhook", "ended=pending", 0),
        ("webhook", "ended=ignored", 1),
        ("syncrequest", "ended=in_flight", 0),
        ("conflict", "status__exact=open", 1),
        ("syncstate", "status__exact=conflict", 1),
        ("syncstate", "q=no-such-id", 0),
    ],
)
def test_it_filters_and_searches(filled: Side, admin_client: Client, page: str, query: str, found: int) -> None:
    Webhook.objects.filter(pk=Webhook.objects.latest("id").pk).update(outcome="ignored", reason="test")
    Webhook.objects.exclude(reason="test").update(outcome="poked")

    response = admin_client.get(f"{reverse(f'admin:customers_{page}_changelist')}?{query}")

    assert response.status_code == 200
    assert response.context["cl"].result_count == found


def test_it_shows_what_waits_on_the_first_page(filled: Side, admin_client: Client) -> None:
    response = admin_client.get("/admin/")

    (tile,) = [tile for tile in response.context["tiles"] if tile.title == "Synchronisation"]
    assert tile.figures is not None
    values = {figure.label: figure.value for figure in tile.figures}
    assert values["open conflicts"] == 1


def test_a_state_leads_to_what_a_person_must_decide(filled: Side) -> None:
    state = SyncState.objects.get()
    address = reverse("admin:customers_syncstate_change", args=[state.pk])
    listed = f"{reverse('admin:customers_conflict_changelist')}?q={state.customer_id}&amp;status__exact=open"
    client = staff("viewer")

    disputed = client.get(address).content.decode()
    Conflict.objects.all().delete()
    SyncState.objects.update(status="failed", last_error_message="no")
    failed = client.get(address).content.decode()
    SyncState.objects.update(status="in_sync")
    calm = client.get(address).content.decode()

    assert f'<a href="{listed}">1 open conflict</a>. That waits' in disputed
    assert "What was sent was refused." in failed
    assert "open conflict" not in calm and "refused" not in calm


def test_a_state_that_waits_for_nothing_names_no_next_attempt(filled: Side, admin_client: Client) -> None:
    address = reverse("admin:customers_syncstate_change", args=[SyncState.objects.get().pk])
    SyncState.objects.update(next_attempt_at="2031-02-03T04:05:06Z")

    calm = admin_client.get(address).content.decode()
    SyncState.objects.update(dirty_at="2031-02-03T04:00:00Z")
    waiting = admin_client.get(address).content.decode()

    assert "2031-02-03 04:05:06" not in calm
    assert "2031-02-03 04:05:06" in waiting


def test_it_opens_a_large_list_without_reading_all_of_it(side: Side, admin_client: Client) -> None:
    with connection.cursor() as cursor:
        # Without the dead rows of tests that were rolled back.
        cursor.execute("TRUNCATE customers_syncstate CASCADE")
        cursor.execute(FILL_SQL, [20_000])
        cursor.execute("ANALYZE customers_syncstate")
        cursor.execute("SELECT relpages FROM pg_class WHERE oid = 'customers_syncstate'::regclass")
        (all_pages,) = cursor.fetchone()
    url = reverse("admin:customers_syncstate_changelist")
    admin_client.get(url)

    for query in ("", "status__exact=failed", "status__exact=in_sync", "q=r15555"):
        with CaptureQueriesContext(connection) as queries:
            response = admin_client.get(f"{url}?{query}")
        pages = [pages_read(one["sql"]) for one in queries if '"customers_syncstate"' in one["sql"]]

        assert response.status_code == 200
        assert response.context["cl"].result_list
        assert 0 < max(pages) < all_pages / 4, query


def pages_read(sql: str) -> int:
    """How many pages a query looks at."""
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + sql.replace("%", "%%"))
        (plan,) = cursor.fetchone()[0]
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
