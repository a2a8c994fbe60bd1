from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from customers.models import Customer
from dbresilience.constraints import constraint_violation

pytestmark = pytest.mark.django_db


@pytest.mark.feature("C3", "C8")
def test_it_refuses_the_same_email_in_another_case_among_active_customers() -> None:
    Customer.objects.create(name="Ann", email="ann@example.com")

    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        Customer.objects.create(name="Anne", email="ANN@Example.com")

    violation = constraint_violation(caught.value)
    assert (violation.code, violation.constraint) == ("duplicate_entry", "customers_customer_email_active_uniq")
    assert violation.columns == ("email",)


@pytest.mark.feature("C3")
def test_it_frees_the_email_of_a_deleted_customer() -> None:
    Customer.objects.create(email="ann@example.com", deleted_at=timezone.now())

    again = Customer.objects.create(email="Ann@example.com")

    assert {row.pk for row in Customer.objects.active().with_email("ANN@example.com")} == {again.pk}
    assert Customer.objects.with_email("ann@EXAMPLE.com").count() == 2


@pytest.mark.feature("C8")
@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"version": 0}, "customers_customer_version_positive"),
        ({"name": ""}, "customers_customer_name_filled"),
        ({"email": ""}, "customers_customer_email_filled"),
        ({"phone": ""}, "customers_customer_phone_filled"),
        ({"address": []}, "customers_customer_address_object"),
        ({"metadata": "text"}, "customers_customer_metadata_object"),
    ],
)
def test_it_holds_its_invariants_in_the_database(values: dict[str, object], constraint: str) -> None:
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        Customer.objects.create(**values)

    assert constraint_violation(caught.value).constraint == constraint


def test_it_takes_any_number_of_customers_without_an_email() -> None:
    Customer.objects.create(name="One")
    Customer.objects.create(name="Two")

    assert Customer.objects.filter(email__isnull=True).count() == 2
