from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission

from operations.roles import ACCESS_APPS, OWN_APPS, roles_restate

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16")]


def rights_of(role: str) -> set[str]:
    rows = Permission.objects.filter(group__name=role).values_list("content_type__app_label", "codename")
    return {f"{app}.{codename}" for app, codename in rows}


def test_it_ships_three_roles() -> None:
    assert set(Group.objects.values_list("name", flat=True)) == {"viewer", "operator", "admin"}


def test_it_lets_viewers_see_all_of_ours_and_change_nothing() -> None:
    rights = rights_of("viewer")

    assert {"customers.view_customer", "operations.view_auditentry", "operations.scope_customers_read"} <= rights
    assert all(right.partition(".")[2].startswith(("view_", "scope_")) for right in rights)
    assert not {right for right in rights if right.startswith(("auth.", "django_celery_beat.")) or "write" in right}


def test_it_lets_operators_act_but_not_on_keys_and_people() -> None:
    rights = rights_of("operator")

    assert rights_of("viewer") <= rights
    assert {"customers.change_customer", "operations.scope_operations_write"} <= rights
    assert not rights & {"operations.revoke_apikey", "operations.delete_auditentry", "operations.scope_metrics_read"}
    assert not {right for right in rights if right.startswith("auth.")}


def test_it_lets_admins_do_everything() -> None:
    ours = Permission.objects.filter(content_type__app_label__in=OWN_APPS | ACCESS_APPS).values_list(
        "content_type__app_label", "codename"
    )

    assert rights_of("admin") == {f"{app}.{codename}" for app, codename in ours}


def test_it_adds_what_is_missing_and_keeps_what_was_added() -> None:
    viewer = Group.objects.get(name="viewer")
    before = rights_of("viewer")
    viewer.permissions.set([Permission.objects.get(codename="revoke_apikey")])

    for app in OWN_APPS:
        roles_restate(apps.get_app_config(app))

    assert rights_of("viewer") == before | {"operations.revoke_apikey"}
