"""Customers in the console: seen by staff, changed by nobody there but through a named action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Exists, FilteredRelation, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from customers.admin.erasures import erasure_words
from customers.erasing.obstacles import erasure_allow, erasure_obstacles
from customers.erasing.services import customer_erase
from customers.errors import CustomerBusy, CustomerDeleted, ErasureObstructed
from customers.exporting.documents import customer_export, document_text
from customers.models import Customer, Erasure, SyncState
from customers.models.customer import CustomerQuerySet, name_key
from customers.services import customer_delete
from dbresilience.transactions import run_in_transaction
from operations.audit import actor_of, audit_record
from operations.console import RecordAdmin
from operations.identifiers import uuid_of
from operations.life.sources import Name
from operations.overview import Tone
from operations.page_values import NOTHING, badge, json_block, number_of, record_link, words

AT_ONCE: Final = 100
_ASKED_AT_ONCE: Final = 10
_TONES: Final[dict[str, Tone]] = {
    "in_sync": "good",
    "pending": "plain",
    "retrying": "warn",
    "conflict": "bad",
    "failed": "bad",
    "orphaned": "warn",
    "deleted": "plain",
}


class PresenceFilter(SimpleListFilter):
    """Deleted customers apart from the others."""

    title = "presence"
    parameter_name = "presence"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("deleted", "Deleted")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Customer]) -> QuerySet[Customer]:
        match self.value():
            case "active":
                return queryset.filter(deleted_at__isnull=True)
            case "deleted":
                return queryset.filter(deleted_at__isnull=False)
            case _:
                return queryset


class SyncFilter(SimpleListFilter):
    """Customers by where they stand with some integration."""

    title = "sync status"
    parameter_name = "sync_status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(value, words(str(label))) for value, label in SyncState.Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Customer]) -> QuerySet[Customer]:
        status = self.value()
        if status is None:
            return queryset
        # In the order of the index of states (see get_search_results): the page takes the first rows of it, where any
        # other order would sort every customer of that status. With several integrations the newest state stands for
        # all of them.
        found = FilteredRelation("sync_states", condition=Q(sync_states__status=status))
        newer = SyncState.objects.filter(customer=OuterRef("pk"), status=status, pk__gt=OuterRef("found__pk"))
        return queryset.annotate(found=found).filter(~Exists(newer), found__pk__isnull=False)


@admin.register(Customer)
class CustomerAdmin(RecordAdmin):
    """Customers. They are edited through the API; here they can be deleted, for good."""

    list_display = ("__str__", "email_address", "presence", "integrations", "created_at", "updated_at")
    list_filter = (PresenceFilter, SyncFilter)
    search_fields = ("id",)
    search_help_text = "Id, e-mail or remote id, whole; or the beginning of a name"
    fields = (
        "id",
        "name",
        "email_address",
        "phone",
        "address_block",
        "metadata_block",
        "version",
        "presence",
        "created_at",
        "updated_at",
        "deleted_at",
        "erasure_state",
        "integrations",
        "elsewhere",
    )
    ordering = ("-created_at", "-pk")
    defer_in_list = ("address", "metadata")
    actions = ("export_data", "delete_for_good", "erase")
    page_actions = ("export_data", "delete_for_good", "erase")
    dangerous_actions = frozenset({"delete_for_good", "erase"})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("sync_states")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if request.GET.get(SyncFilter.parameter_name):
            # Here, since the list puts its own order over that of a filter.
            queryset = queryset.order_by("-found__pk", "-pk")
        if not term or not isinstance(queryset, CustomerQuerySet):
            return queryset, False
        # One index each, tried in turn: joined by OR they would read the whole table.
        if (row_id := uuid_of(term)) is not None:
            return queryset.filter(pk=row_id), False
        if "@" in term:
            return queryset.with_email(term), False
        linked = list(SyncState.objects.filter(remote_id=term).values_list("customer_id", flat=True)[:50])
        if linked:
            return queryset.filter(pk__in=linked), False
        # In the order of the index of names: many names may begin so, and sorting them all by age takes seconds.
        return queryset.with_name_prefix(term).order_by(name_key(), "pk"), False

    def life_of(self, record: Customer) -> Name:
        return Name("customer", str(record.pk))

    @admin.display(description="State")
    def presence(self, customer: Customer) -> SafeString:
        if customer.erased_at is not None:
            return badge("Erased", "plain")
        return badge("Active", "good") if customer.deleted_at is None else badge("Deleted", "plain")

    @admin.display(description="Erasure")
    def erasure_state(self, customer: Customer) -> SafeString | str:
        erasure = Erasure.objects.filter(pk=customer.pk).first()
        return NOTHING if erasure is None else record_link(erasure, erasure_words(erasure))

    @admin.display(description="Integrations")
    def integrations(self, customer: Customer) -> SafeString:
        states = sorted(customer.sync_states.all(), key=lambda state: state.integration)
        if not states:
            return badge("Not seen yet", "plain")
        return format_html_join(
            " ",
            "{} {} {}",
            (
                (
                    state.integration,
                    badge(words(state.get_status_display()), _TONES[state.status]),
                    record_link(state, state.remote_id or "not there yet"),
                )
                for state in states
            ),
        )

    @admin.display(description="All about it")
    def elsewhere(self, customer: Customer) -> SafeString:
        found = [
            ("Events", "outbox_storedevent", f"customer:{customer.pk}"),
            ("Sync states", "customers_syncstate", str(customer.pk)),
            ("Conflicts", "customers_conflict", str(customer.pk)),
            ("Differences", "customers_drift", str(customer.pk)),
            ("Protected changes", "customers_saga", str(customer.pk)),
            *(
                (f"Webhooks of {state.remote_id}", "customers_webhook", state.remote_id)
                for state in customer.sync_states.all()
                if state.remote_id
            ),
        ]
        return format_html_join(
            " · ",
            '<a href="{}">{}</a>',
            ((reverse(f"admin:{name}_changelist", query={"q": term}), text) for text, name, term in found),
        )

    @admin.display(description="E-mail")
    def email_address(self, customer: Customer) -> str:
        return customer.email or NOTHING

    @admin.display(description="Address")
    def address_block(self, customer: Customer) -> SafeString | str:
        return json_block(customer.address)

    @admin.display(description="Metadata")
    def metadata_block(self, customer: Customer) -> SafeString | str:
        return json_block(customer.metadata)

    @admin.action(description="Delete for good, also in integrations…", permissions=["delete_for_good"])
    def delete_for_good(self, request: HttpRequest, queryset: QuerySet[Customer]) -> TemplateResponse | None:
        return self._confirmed(request, queryset.filter(deleted_at__isnull=True), "delete_for_good")

    @admin.action(description="Erase personal data…", permissions=["erase"])
    def erase(self, request: HttpRequest, queryset: QuerySet[Customer]) -> TemplateResponse | None:
        return self._confirmed(request, queryset, "erase")

    @admin.action(description="Export all data", permissions=["export"])
    def export_data(self, request: HttpRequest, queryset: QuerySet[Customer]) -> HttpResponse | None:
        chosen = list(queryset.values_list("pk", flat=True)[: AT_ONCE + 1])
        if len(chosen) > AT_ONCE:
            self.message_user(request, f"At most {AT_ONCE} customers at once.", messages.ERROR)
            return None
        documents = [customer_export(customer_id=one, actor=actor_of(request)) for one in chosen]
        name = f"customer-{chosen[0]}.json" if len(chosen) == 1 else "customers.json"
        return HttpResponse(
            document_text(documents[0] if len(documents) == 1 else documents),
            content_type="application/json",
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"},
        )

    def _confirmed(self, request: HttpRequest, queryset: QuerySet[Customer], action: str) -> TemplateResponse | None:
        """Ask on a page of its own; do it when the answer was yes."""
        question, act, past = _DANGEROUS[action]
        customers = list(queryset[: AT_ONCE + 1])
        if len(customers) > AT_ONCE:
            self.message_user(request, f"At most {AT_ONCE} customers at once.", messages.ERROR)
            return None
        if request.POST.get("confirmed") != "yes":
            context = {
                **self.admin_site.each_context(request),
                "title": question.format(number_of(len(customers), "customer", "customers")),
                "customers": customers,
                "opts": self.model._meta,
                "checkbox_name": ACTION_CHECKBOX_NAME,
                "action": action,
                "obstacles": _obstacles(customers) if action == "erase" else [],
            }
            return TemplateResponse(request, f"customers/{action}.html", context)
        chosen = len(request.POST.getlist(ACTION_CHECKBOX_NAME))
        despite = request.POST.get("despite_obstacles") == "yes"
        done = 0
        for customer in customers:
            try:
                done += act(customer.pk, actor_of(request), despite)
            except ErasureObstructed as exc:
                self.message_user(request, f"{customer}: {' '.join(exc.obstacles)} Not erased.", messages.WARNING)
        self.message_user(request, f"{past} {done} of {number_of(chosen, 'customer', 'customers')}.", messages.SUCCESS)
        return None

    def offers(self, request: HttpRequest, action: str, record: Customer) -> bool:
        match action:
            case "delete_for_good":
                return record.deleted_at is None
            case "erase":
                return record.erased_at is None
            case _:
                return True

    def has_delete_for_good_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.delete_customer")

    def has_erase_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.erase_customer")

    def has_export_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.export_customer")


def _obstacles(customers: Sequence[Customer]) -> list[str]:
    """What hangs on the first of them; the others are asked when it is confirmed, for each is a call."""
    return [f"{customer}: {text}" for customer in customers[:_ASKED_AT_ONCE] for text in erasure_obstacles(customer.pk)]


def _deleted(customer_id: UUID, actor: str, despite: bool) -> bool:
    """Delete one customer, with its entry in the audit trail; False when somebody else did or is changing it."""

    def work() -> None:
        customer_delete(customer_id=customer_id, origin="console")
        audit_record(actor=actor, action="customer.deleted", target=f"customer:{customer_id}")

    try:
        run_in_transaction(work)
    except (CustomerDeleted, CustomerBusy):
        return False
    return True


def _erased(customer_id: UUID, actor: str, despite: bool) -> bool:
    if not despite:
        erasure_allow(customer_id)
    customer_erase(customer_id=customer_id, actor=actor, origin="console")
    return True


_DANGEROUS: Final[dict[str, tuple[str, Callable[[UUID, str, bool], bool], str]]] = {
    "delete_for_good": ("Delete {} for good?", _deleted, "Deleted"),
    "erase": ("Erase the personal data of {}?", _erased, "Erased"),
}
