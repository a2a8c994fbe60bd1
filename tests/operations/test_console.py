from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from operations.console import RecordAdmin
from operations.keys import apikey_create
from operations.models import ApiKey, AuditEntry
from operations.pagination import COUNTED_AT_MOST
from tests.operations.conftest import MakeClient

pytestmark = pytest.mark.django_db

ENTRIES = reverse("admin:operations_auditentry_changelist")
KEYS = reverse("admin:operations_apikey_changelist")

# Serves the tests of large lists: rows in one statement.
FILL_SQL = """
INSERT INTO operations_auditentry (actor, action, target, detail, correlation_id)
SELECT 'user:' || n %% 7, 'thing.done', 'thing:' || n, '{}', '' FROM generate_series(1, %s) n
"""


@pytest.fixture
def boss(staff_client: MakeClient) -> Client:
    return staff_client(is_superuser=True)


def fill(rows: int, *, analyze: bool = False) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FILL_SQL, [rows])
        if analyze:
            cursor.execute("ANALYZE operations_auditentry")


class InlineFinder(HTMLParser):
    """Collects what a strict Content-Security-Policy would block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._script: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = dict(attributes)
        if tag == "style" or "style" in names or any(name.startswith("on") for name in names):
            self.found.append(self.get_starttag_text() or tag)
        if tag == "script" and "src" not in names and names.get("type") != "application/json":
            self.found.append("inline script")
        for name in ("src", "href", "action"):
            value = names.get(name) or ""
            if value.startswith(("http:", "https:", "//", "javascript:")) and tag != "a":
                self.found.append(f"{tag} {name}={value}")


def inline_in(content: bytes) -> list[str]:
    finder = InlineFinder()
    finder.feed(content.decode())
    return finder.found


PAGES = [
    *("/admin/", "/admin/login/", "/admin/password_change/", "/api/docs/"),
    *(f"/admin/{model._meta.app_label}/{model._meta.model_name}/" for model in admin.site._registry),
]


@pytest.mark.parametrize("page", PAGES)
def test_it_puts_nothing_inline_that_the_policy_would_block(boss: Client, client: Client, page: str) -> None:
    response = (client if "login" in page else boss).get(page)

    assert response.status_code == 200
    assert inline_in(response.content) == []
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_it_finds_inline_scripts_and_styles() -> None:
    page = b"""<style></style><p style="x"><script>1</script><a onclick="x"><img src="//x"><script src="/y"></script>"""

    assert len(inline_in(page)) == 5


@pytest.mark.parametrize("address", ["/admin", "/admin/operations/apikey", "/admin/login"])
def test_it_needs_no_trailing_slash(boss: Client, client: Client, address: str) -> None:
    response = (client if "login" in address else boss).get(address)

    assert response.status_code == 200


def test_it_sends_strangers_to_the_login(client: Client) -> None:
    response = client.get("/")
    page = client.get(response["Location"])

    assert response["Location"] == "/admin/"
    assert page["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("model", [m for m, a in admin.site._registry.items() if isinstance(a, RecordAdmin)])
def test_it_offers_no_way_to_write_a_record(boss: Client, model: Any, rf: Any) -> None:
    names = f"admin:{model._meta.app_label}_{model._meta.model_name}"

    assert boss.get(reverse(f"{names}_add")).status_code == 403
    assert boss.post(reverse(f"{names}_add")).status_code == 403
    assert "delete_selected" not in boss.get(reverse(f"{names}_changelist")).content.decode()


def test_it_changes_no_record_that_is_posted(boss: Client) -> None:
    key = apikey_create(name="shop", scopes=["customers:read"]).key

    for action in ("change", "delete"):
        page = reverse(f"admin:operations_apikey_{action}", args=[key.pk])
        assert boss.post(page, {"name": "x", "post": "yes"}).status_code == 403

    assert ApiKey.objects.get().name == "shop"


@pytest.mark.feature("C16")
def test_it_revokes_keys_and_says_who_did(staff_client: MakeClient) -> None:
    key = apikey_create(name="shop", scopes=["customers:read"]).key

    response = staff_client("admin").post(KEYS, {"action": "revoke", "_selected_action": [key.pk]}, follow=True)

    assert "Revoked 1 of 1 key." in response.content.decode()
    assert ApiKey.objects.get().revoked_at is not None
    assert AuditEntry.objects.get(action="apikey.revoked").actor == "user:admin"


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_it_lets_only_admins_revoke(staff_client: MakeClient, role: str) -> None:
    key = apikey_create(name="shop", scopes=["customers:read"]).key
    client = staff_client(role)

    page = client.get(KEYS)
    client.post(KEYS, {"action": "revoke", "_selected_action": [key.pk]})

    assert "shop" in page.content.decode()
    assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize(("state", "shown"), [("active", {"a"}), ("expired", {"e"}), ("revoked", {"r"})])
def test_it_filters_keys_by_state(boss: Client, state: str, shown: set[str]) -> None:
    for name in "aer":
        apikey_create(name=name, scopes=["customers:read"])
    ApiKey.objects.filter(name="e").update(expires_at="2020-01-01T00:00:00Z")
    ApiKey.objects.filter(name="r").update(revoked_at="2020-01-01T00:00:00Z")

    response = boss.get(KEYS, {"state": state})

    assert {key.name for key in response.context["cl"].result_list} == shown


@pytest.mark.feature("F3")
def test_it_counts_no_large_table(boss: Client) -> None:
    fill(COUNTED_AT_MOST + 2000, analyze=True)

    with CaptureQueriesContext(connection) as queries:
        response = boss.get(ENTRIES)
        boss.get(ENTRIES, {"q": "user:1"})

    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"] and "auditentry" in query["sql"]]
    assert len(counts) == 2
    assert all(f"LIMIT {COUNTED_AT_MOST + 1}" in sql for sql in counts), counts
    assert response.context["cl"].paginator.count == pytest.approx(COUNTED_AT_MOST + 2000, rel=0.1)


def test_it_knows_the_least_there_is_before_the_table_was_analysed(boss: Client) -> None:
    fill(COUNTED_AT_MOST + 2000)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_class SET reltuples = -1 WHERE relname = 'operations_auditentry'")

    response = boss.get(ENTRIES)

    assert response.context["cl"].paginator.count == COUNTED_AT_MOST + 1


def test_it_searches_whole_values_by_index(boss: Client) -> None:
    fill(3000, analyze=True)

    with CaptureQueriesContext(connection) as queries:
        response = boss.get(ENTRIES, {"q": " thing:2999 "})

    found = [entry.target for entry in response.context["cl"].result_list]
    sql = next(query["sql"] for query in queries if "thing:2999" in query["sql"] and "ORDER BY" in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + sql)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert found == ["thing:2999"]
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("term", ["hing:2", "%", "'", '"', "\\", "9" * 30, "x" * 5000, "😀"])
def test_it_finds_nothing_instead_of_something_like_it(boss: Client, term: str) -> None:
    fill(100)

    response = boss.get(ENTRIES, {"q": term})

    assert response.status_code == 200
    assert list(response.context["cl"].result_list) == []


@pytest.mark.parametrize("query", ["id__exact=x", "p=x", "p=99999999", "o=99", "actor__regex=(", "all=", "nothing=1"])
def test_it_survives_bad_list_addresses(boss: Client, query: str) -> None:
    fill(10)

    response = boss.get(f"{ENTRIES}?{query}")

    assert response.status_code in (200, 302, 400)


@pytest.mark.parametrize("pk", ["0", "99999999999999999999", "x", "%20", "_00", "a" * 500])
def test_it_survives_bad_record_addresses(boss: Client, pk: str) -> None:
    response = boss.get(f"{ENTRIES}{pk}/change/")

    assert response.status_code in (302, 404)


def test_it_escapes_what_strangers_wrote(boss: Client) -> None:
    hostile = "<script>alert(1)</script>"
    entry = AuditEntry.objects.create(actor=hostile, action="x", target=hostile, detail={hostile: [hostile]})

    pages = [boss.get(page).content.decode() for page in ("/admin/", ENTRIES, f"{ENTRIES}{entry.pk}/change/")]

    assert all("<script>alert" not in page for page in pages)
    assert re.search(r"&lt;script&gt;alert", pages[2])


def test_it_shows_the_tiles_that_a_person_may_see(staff_client: MakeClient) -> None:
    everything = staff_client("admin").get("/admin/").content.decode()
    nothing = staff_client().get("/admin/").content.decode()

    assert "API keys" in everything
    assert "Latest actions" in everything
    assert "API keys" not in nothing
    assert "Ask an admin for a role" in nothing


def test_it_writes_times_that_sort(boss: Client) -> None:
    AuditEntry.objects.create(actor="x", action="x", at="2026-03-01T04:05:06Z")

    page = boss.get(ENTRIES).content.decode()

    assert "2026-03-01 04:05:06" in page


def test_it_pages_through_the_first_rows_and_says_so(boss: Client) -> None:
    fill(COUNTED_AT_MOST + 200, analyze=True)

    first = boss.get(ENTRIES)
    last = boss.get(ENTRIES, {"p": COUNTED_AT_MOST // 50})
    beyond = boss.get(ENTRIES, {"p": COUNTED_AT_MOST // 50 + 1})

    assert first.context["cl"].paginator.num_pages == COUNTED_AT_MOST // 50
    assert "Pages go as far as the first 2,000." in first.content.decode()
    assert len(last.context["cl"].result_list) == 50
    assert beyond.status_code in (302, 404) or not beyond.context["cl"].result_list


def test_it_says_why_a_list_is_empty(boss: Client) -> None:
    nothing = boss.get(KEYS).content.decode()
    nothing_like_it = boss.get(KEYS, {"q": "nobody"}).content.decode()

    assert "There are no API keys yet." in nothing
    assert "Nothing here is like that." in nothing_like_it


@pytest.mark.parametrize(("address", "status", "title"), [("/admin/x/", 404, "Not Found")])
def test_it_shows_errors_as_pages_to_people_and_as_problems_to_programs(
    boss: Client, address: str, status: int, title: str
) -> None:
    page = boss.get(address, headers={"accept": "text/html"})
    problem = boss.get(address)

    assert (page.status_code, problem.status_code) == (status, status)
    assert f"<h1>{title}</h1>" in page.content.decode()
    assert page["X-Correlation-ID"] in page.content.decode()
    assert inline_in(page.content) == []
    assert problem["Content-Type"] == "application/problem+json"


def test_it_counts_keys_within_bounds(boss: Client) -> None:
    apikey_create(name="shop", scopes=["customers:read"])
    ApiKey.objects.create(name="old", prefix="p", digest="0" * 64, scopes=[], expires_at="2020-01-01T00:00:00Z")

    page = boss.get("/admin/")

    tile = next(tile for tile in page.context["tiles"] if tile.title == "API keys")
    assert [figure.value for figure in tile.figures] == [1, 0, 1]


def test_it_says_how_far_it_counted(boss: Client) -> None:
    fill(COUNTED_AT_MOST + 200, analyze=True)

    everything = boss.get(ENTRIES).content.decode()
    few = boss.get(ENTRIES, {"q": "thing:7"}).content.decode()
    AuditEntry.objects.bulk_create(
        AuditEntry(actor="user:busy", action="thing.done") for _ in range(COUNTED_AT_MOST + 10)
    )
    many = boss.get(ENTRIES, {"q": "user:busy"}).content.decode()

    assert re.search(r"about 2,\d\d\d audit entries", everything)
    assert "1 found" in few
    assert "over 2,000 audit entries" in many


def test_it_leads_from_the_first_page_to_pages_that_are_there(boss: Client) -> None:
    addresses = set(re.findall(r'href="(/[^"#]+)"', boss.get("/admin/").content.decode().replace("&amp;", "&")))

    answers = {address: boss.get(address).status_code for address in addresses if not address.startswith("/static/")}

    assert len(answers) > 25
    assert {address: status for address, status in answers.items() if status != 200} == {}


@pytest.mark.feature("C16")
def test_it_revokes_a_key_on_its_page(staff_client: MakeClient) -> None:
    key = apikey_create(name="shop", scopes=["customers:read"]).key
    client, page = staff_client("admin"), f"{KEYS}{key.pk}/change/"

    shown = client.get(page).content.decode()
    data = {"action": "revoke", "_selected_action": [key.pk], "from_page": "1"}
    answer = client.post(KEYS, data, follow=True)

    assert 'name="action" value="revoke"' in shown and 'class="danger"' in shown
    assert answer.redirect_chain[-1][0] == page
    assert "Revoked 1 of 1 key." in answer.content.decode()
    assert 'value="revoke"' not in answer.content.decode()
    assert 'value="revoke"' not in staff_client("viewer").get(page).content.decode()


def test_it_shows_no_help_that_was_written_for_programmers(boss: Client) -> None:
    key = apikey_create(name="shop", scopes=["customers:read"]).key

    page = boss.get(f"{KEYS}{key.pk}/change/").content.decode()

    texts = [field.help_text for field in ApiKey._meta.get_fields() if getattr(field, "help_text", "")]
    assert texts
    assert not [text for text in texts if str(text) in page]


@pytest.mark.parametrize("page", [KEYS, f"{KEYS}1/change/", "/admin/auth/group/", "/admin/auth/group/add/"])
def test_its_ways_all_begin_at_the_overview(boss: Client, page: str) -> None:
    key = apikey_create(name="shop", scopes=["customers:read"]).key

    shown = boss.get(page.replace("/1/", f"/{key.pk}/")).content.decode()

    assert ">Overview</a>" in shown
    assert "Home" not in shown


CSS = Path(__file__).parents[2] / "operations" / "static" / "operations" / "console.css"
# What is written on what, by the names of the variables.
WRITTEN = [
    *(
        (ink, ground)
        for ink in ("body-fg", "body-quiet-color", "body-medium-color", "link-fg", "link-hover-color")
        for ground in ("body-bg", "card-bg", "darkened-bg", "selected-row")
    ),
    *((f"{tone}-fg", ground) for tone in ("good", "warn", "bad", "plain") for ground in (f"{tone}-bg", "card-bg")),
    *(
        ("button-fg", ground)
        for ground in (
            "button-bg",
            "button-hover-bg",
            "default-button-bg",
            "default-button-hover-bg",
            "close-button-bg",
            "close-button-hover-bg",
            "delete-button-bg",
            "delete-button-hover-bg",
        )
    ),
    ("primary-fg", "primary"),
    ("header-color", "header-bg"),
    ("header-link-color", "header-bg"),
    ("header-link-color", "secondary"),
    ("breadcrumbs-fg", "breadcrumbs-bg"),
    ("breadcrumbs-link-fg", "breadcrumbs-bg"),
    ("body-fg", "message-success-bg"),
    ("body-fg", "message-warning-bg"),
    ("body-fg", "message-error-bg"),
]


def luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_its_text_can_be_read_in_both_schemes(scheme: int) -> None:
    found = re.findall(r"--([\w-]+): (?:light-dark\((#\w{6}), (#\w{6})\)|(#\w{6}));", CSS.read_text())
    colours = {name: (light or both, dark or both)[scheme] for name, light, dark, both in found}

    weak = {}
    for ink, ground in WRITTEN:
        dim, bright = sorted((luminance(colours[ink]), luminance(colours[ground])))
        ratio = (bright + 0.05) / (dim + 0.05)
        if ratio < 4.5:
            weak[f"{ink} on {ground}"] = round(ratio, 2)

    assert weak == {}


@pytest.mark.parametrize("page", ["/admin/", KEYS, "/admin/troubles/", "/admin/database/", "/admin/projections/"])
def test_its_pages_can_be_used_by_keyboard(boss: Client, page: str) -> None:
    shown = boss.get(page, follow=True).content.decode()

    # First of all comes the way past the head of the page, and it leads somewhere; nothing is taken out of the order.
    first = re.search(r"<a [^>]*>", shown.partition("<body")[2])
    assert first is not None and 'href="#content-start" class="skip-to-content-link"' in first.group()
    assert 'id="content-start"' in shown
    assert not re.search(r'tabindex="[1-9]', shown)
    assert ":focus-visible { outline: 3px solid var(--focus)" in CSS.read_text()
