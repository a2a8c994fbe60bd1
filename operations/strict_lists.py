"""What a list of the console takes from the address and from forms: what it offers, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import get_fields_from_path
from django.core.exceptions import ValidationError
from django.db.models import DateField, Model, QuerySet
from django.forms import BooleanField
from django.http import HttpRequest, HttpResponse

if TYPE_CHECKING:
    _ModelAdmin = ModelAdmin[Any]
else:
    _ModelAdmin = ModelAdmin


class StrictListMixin(_ModelAdmin):
    """Refuses look-ups that no filter of the page makes, and actions on what cannot be a row.

    The admin itself would turn any ``?name__regex=`` into a condition, which reads whole tables, tells an attacker
    about columns that the page does not show, and fails where the value is none of the column's.
    """

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        filters = self.list_filter if request is None else self.get_list_filter(request)
        return any(lookup in _parameters(self.model, one) for one in filters)

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *more: Any) -> HttpResponse | None:
        # With "all rows" the selection is not looked at.
        across = BooleanField().to_python(request.POST.get("select_across", ""))
        if not across and not all(_can_be_key(self.model, key) for key in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            self.message_user(request, "What was selected is no row of this list. Nothing was done.", messages.ERROR)
            return None
        return super().response_action(request, queryset, *more)


def _parameters(model: type[Model], list_filter: Any) -> set[str]:
    """Names of the query parameters that an entry of ``list_filter`` reads."""
    if isinstance(list_filter, type) and issubclass(list_filter, SimpleListFilter):
        return {str(list_filter.parameter_name)}
    path: str = list_filter[0] if isinstance(list_filter, tuple | list) else list_filter
    field: Any = get_fields_from_path(model, path)[-1]
    lookups = ["exact", "isnull"]
    if field.is_relation:
        lookups.append(f"{field.target_field.name}__exact")
    if isinstance(field, DateField):
        lookups += ["gte", "lt"]
    return {f"{path}__{lookup}" for lookup in lookups}


def _can_be_key(model: type[Model], text: str) -> bool:
    """Whether some row's primary key could be written so."""
    try:
        model._meta.pk.clean(text, None)
    except ValidationError:
        return False
    return bool(text) and "\x00" not in text
