"""The operators' console: Django's admin with our name and style, and the base class of its pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.contrib.admin import AdminSite, ChoicesFieldListFilter, ShowFacets, display
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME, ActionForm
from django.core.exceptions import ValidationError
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString

from operations import overview
from operations.life.links import life_link, life_url
from operations.life.sources import Name
from operations.logins import ConsoleLoginForm
from operations.models import AuditEntry
from operations.page_values import NOTHING, words
from operations.pagination import CheapPaginator
from operations.posted import posted_text
from operations.strict_lists import StrictListMixin


class ConsoleSite(AdminSite):
    """The admin site of the product."""

    site_header = "Zenskar"
    site_title = "Zenskar"
    index_title = "Overview"
    enable_nav_sidebar = False
    # Unknown addresses are 404 here as everywhere.
    final_catch_all_view = False
    login_form = ConsoleLoginForm
    index_template = "operations/index.html"
    site_url = None
    app_order = ("customers", "outbox", "projections", "operations", "auth", "django_celery_beat")
    model_order = (
        "Customer",
        "SyncState",
        "Conflict",
        "Drift",
        "Saga",
        "Webhook",
        "StoredEvent",
        "Delivery",
        "Subscription",
    )

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().login(request, extra_context)
        form = (getattr(response, "context_data", None) or {}).get("form")
        if isinstance(form, ConsoleLoginForm) and form.retry_after:
            response.status_code = 429
            response["Retry-After"] = str(form.retry_after)
        return response

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        context: dict[str, Any] = {"tiles": overview.tiles(request), "audit": []}
        if request.user.has_perm("operations.view_auditentry"):
            context["audit"] = AuditEntry.objects.defer("detail").order_by("-pk")[:8]
        return super().index(request, context | (extra_context or {}))

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Apps and models in the order of what people look for; those without a place come last, by name."""
        apps = super().get_app_list(request, app_label)
        models = {name: place for place, name in enumerate(self.model_order)}
        for app in apps:
            app["models"].sort(key=lambda model: models.get(model["object_name"], len(models)))
            for model in app["models"]:
                shown = self._registry.get(model["model"])
                if isinstance(shown, RecordAdmin) and shown.plural:
                    model["name"] = shown.plural[:1].upper() + shown.plural[1:]
        places = {label: place for place, label in enumerate(self.app_order)}
        return sorted(apps, key=lambda app: places.get(app["app_label"], len(places)))


class RecordAdmin(StrictListMixin):
    """Pages of a model whose rows are records: seen and acted upon, never added, changed or deleted by hand.

    Tuned for millions of rows: the number of rows is an estimate or bounded, and a search matches exactly. Subclasses
    name in ``search_fields`` indexed columns alone (``=name`` ignores case and needs an index on upper(name)), put into
    ``list_filter`` nothing but indexed columns with few values, set ``list_select_related``, and ``defer_in_list`` for
    wide columns.

    Attributes:
        plural: what the rows are called, if the model's own word says it too shortly.
        labels: words for fields whose names are a programmer's, by field.
        help_texts: what is said under fields. Those of the model are for whoever reads the code, and are not shown.
        page_actions: actions of the list that the page of one record offers too.
        dangerous_actions: of those, the ones that cannot be undone; asked about twice, here or, when their text ends
            with an ellipsis, on a page of their own.
    """

    change_form_template = "operations/record.html"
    change_list_template = "operations/records.html"
    empty_value_display = NOTHING
    paginator = CheapPaginator
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    list_per_page = 50
    list_max_show_all = 0
    actions_selection_counter = True
    sortable_by: ClassVar[Any] = ()
    defer_in_list: tuple[str, ...] = ()
    plural: ClassVar[str] = ""
    labels: ClassVar[Mapping[str, str]] = {}
    help_texts: ClassVar[Mapping[str, str]] = {}
    page_actions: ClassVar[tuple[str, ...]] = ()
    dangerous_actions: ClassVar[frozenset[str]] = frozenset()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset = super().get_queryset(request)
        match = request.resolver_match
        if self.defer_in_list and match is not None and (match.url_name or "").endswith("_changelist"):
            queryset = queryset.defer(*self.defer_in_list)
        return queryset

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Rows in which one of ``search_fields`` is exactly the term, which is taken whole.

        The admin's own search would cast ids and numbers to text, and so read the whole table; here the term becomes a
        value of the column, and columns whose values it cannot be are left out.
        """
        term = search_term.strip()
        if not term:
            return queryset, False
        query = Q()
        for name in self.get_search_fields(request):
            query |= _exactly(self.model, str(name), term)
        return (queryset.filter(query) if query else queryset.none()), False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        title = str(self.model._meta.verbose_name)
        context = {
            "title": title[:1].upper() + title[1:],
            "plural": self._plural(),
            "page_actions": self._offered(request, object_id),
            "life_url": self._life_url(request, object_id),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            **(extra_context or {}),
        }
        return super().changeform_view(request, object_id, form_url, context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        silent = {field.name: "" for field in self.model._meta.get_fields() if hasattr(field, "help_text")}
        kwargs = {"labels": self.labels, "help_texts": {**silent, **self.help_texts}, **kwargs}
        return super().get_form(request, obj, change=change, **kwargs)

    def life_of(self, record: Any) -> Name | None:
        """The name under which the life of a record is found; its page and the list lead there."""
        return None

    @display(description="Life")
    def life_column(self, record: Any) -> SafeString | str:
        name = self.life_of(record)
        return NOTHING if name is None else life_link(name.kind, name.value, "Life")

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = super().get_list_display(request)
        return shown if type(self).life_of is RecordAdmin.life_of else (*shown, "life_column")

    def offers(self, request: HttpRequest, action: str, record: Any) -> bool:
        """Whether an action makes sense for this record; what a person may do is looked after elsewhere."""
        return True

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *more: Any) -> HttpResponse | None:
        response = super().response_action(request, queryset, *more)
        chosen = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if isinstance(response, HttpResponseRedirect) and "from_page" in request.POST and len(chosen) == 1:
            meta = self.model._meta
            return HttpResponseRedirect(reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=chosen))
        return response

    def _plural(self) -> str:
        plural = self.plural or str(self.model._meta.verbose_name_plural)
        return plural[:1].upper() + plural[1:]

    def _life_url(self, request: HttpRequest, object_id: str | None) -> str:
        if object_id is None or type(self).life_of is RecordAdmin.life_of:
            return ""
        record = self.get_object(request, object_id)
        name = None if record is None else self.life_of(record)
        return "" if name is None else life_url(name)

    def _offered(self, request: HttpRequest, object_id: str | None) -> list[tuple[str, str, bool]]:
        """Actions for the page of a record: name, text, and whether it cannot be undone."""
        if not self.page_actions or object_id is None:
            return []
        record = self.get_object(request, object_id)
        may = {name: str(found[2]) for name, found in self.get_actions(request).items() if found is not None}
        return [
            (name, may[name], name in self.dangerous_actions)
            for name in self.page_actions
            if record is not None and name in may and self.offers(request, name, record)
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        plural = self._plural()
        return super().changelist_view(request, {"title": plural, "plural": plural, **(extra_context or {})})


class ReasonedActions(ActionForm):
    """``action_form`` of a list whose actions ask why."""

    reason = forms.CharField(required=False, max_length=1_000, label="Why")

    @staticmethod
    def reason_of(request: HttpRequest) -> str:
        """Why it is to be done, as the person said; empty, after telling them that it is needed, when they did not."""
        reason = posted_text(request, "reason")
        if not reason:
            messages.error(request, "Say why, beside the action: it goes on record. Nothing was done.")
        return reason


class WordsFilter(ChoicesFieldListFilter):
    """The choices of a field in words as a sentence has them: In sync, instead of In Sync."""

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            yield {**choice, "display": words(str(choice["display"]))}


def _exactly(model: type[Model], name: str, term: str) -> Q:
    """The condition that the field is the term; an empty one when no value of it could be."""
    lookup = "__iexact" if name.startswith("=") else ""
    name = name.removeprefix("=")
    *relations, last = name.split("__")
    for relation in relations:
        model = model._meta.get_field(relation).related_model  # type: ignore[assignment]
    field = model._meta.pk if last == "pk" else model._meta.get_field(last)
    try:
        return Q(**{name + lookup: field.to_python(term)})  # type: ignore[union-attr]
    except ValidationError:
        return Q()
