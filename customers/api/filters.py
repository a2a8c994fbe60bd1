"""Which customers a list holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import django_filters
from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef
from django.http import QueryDict
from django_filters.fields import IsoDateTimeField

from customers.api.pages import ORDERINGS, SIZE, SIZE_LARGEST
from customers.errors import InvalidQuery, parameter_unknown
from customers.models import Customer, SyncState
from customers.models.customer import CustomerQuerySet
from operations.errors import FieldError


def _integrations() -> list[tuple[str, str]]:
    return [(name, name) for name in settings.INTEGRATIONS]


class CustomerListQuery(forms.Form):
    """Parameters of the list that are no filters."""

    ordering = forms.ChoiceField(choices=[(name, name) for name in ORDERINGS], required=False)
    page_size = forms.IntegerField(min_value=1, max_value=SIZE_LARGEST, required=False)
    cursor = forms.CharField(required=False, strip=False)
    include_deleted = forms.ChoiceField(choices=[("true", "true"), ("false", "false")], required=False)


class InstantField(IsoDateTimeField):  # type: ignore[misc]
    """An instant in any offset, taken in UTC; without an offset it is in UTC already.

    PostgreSQL knows fewer offsets than Python: it refuses some that ISO 8601 allows.
    """

    def to_python(self, value: Any) -> datetime | None:
        found: datetime | None = super().to_python(value)
        try:
            return None if found is None else found.astimezone(UTC)
        except OverflowError as exc:
            raise ValidationError("Enter a date and time of the years 1 to 9999.", code="invalid") from exc


class InstantFilter(django_filters.IsoDateTimeFilter):  # type: ignore[misc]
    """A filter by an instant."""

    field_class = InstantField


class CustomerFilter(django_filters.FilterSet):  # type: ignore[misc]
    """Filters of the list; each is answered by an index (see ``Customer.Meta`` and ``SyncState.Meta``)."""

    email = django_filters.CharFilter(method="with_email", max_length=512)
    name = django_filters.CharFilter(method="with_name", max_length=256)
    created_after = InstantFilter(field_name="created_at", lookup_expr="gte")
    created_before = InstantFilter(field_name="created_at", lookup_expr="lt")
    updated_after = InstantFilter(field_name="updated_at", lookup_expr="gte")
    updated_before = InstantFilter(field_name="updated_at", lookup_expr="lt")
    sync_status = django_filters.ChoiceFilter(choices=SyncState.Status.choices, method="with_state")
    integration = django_filters.ChoiceFilter(choices=_integrations, method="with_state")

    class Meta:
        model = Customer
        fields: list[str] = []

    def with_email(self, queryset: CustomerQuerySet, name: str, value: str) -> CustomerQuerySet:
        return queryset.with_email(value)

    def with_name(self, queryset: CustomerQuerySet, name: str, value: str) -> CustomerQuerySet:
        return queryset.with_name_prefix(value)

    def with_state(self, queryset: CustomerQuerySet, name: str, value: str) -> CustomerQuerySet:
        # Called for each of the two parameters; together they speak of one state: this status with this integration.
        given = self.form.cleaned_data
        if name == "integration" and given["sync_status"]:
            return queryset
        wanted = {"status": given["sync_status"], "integration": given["integration"]}
        states = SyncState.objects.filter(customer=OuterRef("pk"), **{key: is_ for key, is_ in wanted.items() if is_})
        return queryset.filter(Exists(states))


PARAMETERS: Final = frozenset(CustomerFilter.base_filters) | frozenset(CustomerListQuery.base_fields)


@dataclass(frozen=True, slots=True)
class CustomerQuery:
    """What a request for the list asks for."""

    customers: CustomerQuerySet
    ordering: str
    page_size: int
    cursor: str | None


def customer_query(parameters: QueryDict, *, may_see_deleted: Callable[[], None]) -> CustomerQuery:
    """The list that the parameters of an address ask for.

    Args:
        parameters: of the address; each at most once, and none that is not known.
        may_see_deleted: called when deleted customers are asked for; raises when the caller may not see them.

    Raises:
        InvalidQuery: with every parameter that is not valid.
    """
    form = CustomerListQuery(parameters)
    filters = CustomerFilter(parameters, queryset=Customer.objects.all())
    errors = [parameter_unknown(name) for name in parameters if name not in PARAMETERS]
    errors += [
        FieldError(code="repeated_parameter", detail="This may be given once.", parameter=name)
        for name, given in parameters.lists()
        if name in PARAMETERS and len(given) > 1
    ]
    for checked in (form, filters.form):
        for name, found in checked.errors.as_data().items():
            errors += [_error(name, error, checked.fields[name]) for error in found]
    if errors:
        raise InvalidQuery(errors)

    customers = filters.qs
    if form.cleaned_data["include_deleted"] == "true":
        may_see_deleted()
    else:
        customers = customers.active()
    return CustomerQuery(
        customers=customers,
        ordering=form.cleaned_data["ordering"] or ORDERINGS[0],
        page_size=form.cleaned_data["page_size"] or SIZE,
        cursor=form.cleaned_data["cursor"] or None,
    )


def _error(name: str, error: ValidationError, field: forms.Field) -> FieldError:
    # Django's messages quote at most the value that the caller sent.
    detail = " ".join(error.messages)
    if isinstance(field, forms.ChoiceField) and error.code == "invalid_choice":
        known = cast("Iterable[tuple[Any, Any]]", field.choices)
        detail = f"One of: {', '.join(str(value) for value, _ in known if value)}."
    return FieldError(code="invalid_value", detail=detail, parameter=name)
