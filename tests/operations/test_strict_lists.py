from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from operations.keys import apikey_create
from operations.models import ApiKey
from operations.page_values import json_block
from operations.strict_lists import StrictListMixin
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16", "F3")]

LISTS = {model: page for model, page in admin.site._registry.items() if isinstance(page, StrictListMixin)}
NO_KEYS = ["x", "", "\x00", "9" * 50, "-1e9", "0" * 5000]


def address(model: type) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")  # type: ignore[attr-defined]


@pytest.fixture
def boss(staff_client: MakeClient) -> Client:
    return staff_client(is_superuser=True)


def test_it_guards_every_list_of_the_console() -> None:
    assert set(LISTS) == set(admin.site._registry)


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model.__name__)
def test_it_refuses_look_ups_that_no_filter_makes(boss: Client, model: type) -> None:
    field = model._meta.fields[-1].name  # type: ignore[attr-defined]
    lookups = [f"{field}__regex=(", f"{field}__gt=1", "nothing__regex=(", f"{field}__regex=(&e=1"]

    answers = [boss.get(f"{address(model)}?{lookup}", headers={"Accept": "text/html"}) for lookup in lookups]

    assert [answer.status_code for answer in answers] == [400] * len(lookups)


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("outbox_delivery", "state__exact=dead"),
        ("outbox_lane", "subscription__name__exact=kafka"),
        ("customers_syncstate", "status__exact=failed"),
        ("customers_customer", "presence=deleted&sync_status=failed"),
        ("operations_apikey", "state=active&q=abc&p=1&o=1"),
        ("django_celery_beat_periodictask", "enabled__exact=1"),
        ("auth_user", "is_staff__exact=1&groups__id__exact=1"),
    ],
)
def test_it_follows_its_own_filters(boss: Client, page: str, query: str) -> None:
    response = boss.get(f"{reverse(f'admin:{page}_changelist')}?{query}")

    assert response.status_code == 200


@pytest.mark.parametrize("value", ["x", "(", "9" * 50, "a,b"])
@pytest.mark.parametrize(
    ("page", "parameter"),
    [
        ("outbox_lane", "subscription__name__exact"),
        ("django_celery_beat_periodictask", "enabled__exact"),
        ("customers_syncstate", "status__isnull"),
        ("auth_user", "groups__id__exact"),
        ("auth_user", "o"),
        ("auth_user", "p"),
    ],
)
def test_it_fails_at_no_value_of_a_filter(boss: Client, page: str, parameter: str, value: str) -> None:
    response = boss.get(reverse(f"admin:{page}_changelist"), {parameter: value})

    assert response.status_code in {200, 302, 400}


@pytest.mark.parametrize(
    ("page", "action"),
    [
        ("customers_syncstate", "look_again"),
        ("customers_customer", "delete_for_good"),
        ("operations_apikey", "revoke"),
        ("django_celery_beat_periodictask", "pause"),
        ("auth_user", "delete_selected"),
    ],
)
@pytest.mark.parametrize("selected", NO_KEYS, ids=lambda text: repr(text[:12]))
def test_it_does_nothing_to_what_cannot_be_a_row(boss: Client, page: str, action: str, selected: str) -> None:
    form = {"action": action, "_selected_action": [selected], "post": "yes", "confirmed": "yes"}

    response = boss.post(reverse(f"admin:{page}_changelist"), form, follow=True)

    assert response.status_code == 200
    words = [str(message) for message in response.context["messages"]]
    assert words == ["What was selected is no row of this list. Nothing was done."]
    assert User.objects.count() == 1


def test_it_revokes_nothing_when_one_of_several_is_no_key(boss: Client) -> None:
    issued = apikey_create(name="shop", scopes=["customers:read"])
    form = {"action": "revoke", "_selected_action": [str(issued.key.pk), "x"]}

    boss.post(reverse("admin:operations_apikey_changelist"), form)

    assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"n": 2**64, "m": -(10**40)}, str(10**40)),
        ({"deep": [2**63, 1.5, None]}, "9223372036854775808"),
        ({"half": "\ud800"}, "\\ud800"),
        ({"name": "Zoë <b>"}, "Zoë &lt;b&gt;"),
    ],
)
def test_it_shows_any_json(value: object, text: str) -> None:
    block = json_block(value)

    assert text in block
    assert block.encode()
