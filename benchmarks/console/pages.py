"""Requests pages as a browser does, in this process, and notes how long each took and its slowest query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import admin
from django.db import connection
from django.test import Client
from django.urls import reverse

# What a person types into the search box of each list: something that is there, in each way that the list offers.
SEARCHES: Final[dict[str, tuple[str, ...]]] = {
    "customers.customer": ("01900000-0000-7000-8000-000000000101", "c257@example.com", "cus_257", "customer 25"),
    "customers.syncstate": ("cus_257", "01900000-0000-7000-8000-000000000101", "257"),
    "customers.syncrequest": ("257",),
    "customers.conflict": ("257",),
    "customers.webhook": ("evt_257", "cus_257"),
    "outbox.storedevent": ("257", "customer:01900000-0000-7000-8000-000000000101"),
    "outbox.delivery": ("257",),
    "operations.apikey": ("k00000000257",),
    "operations.auditentry": ("key:k257", "customer:257", "correlation-257"),
}


@dataclass
class Page:
    """One page of the console.

    Attributes:
        list: the model, as ``app.model``.
        what: which page of that list.
        url: its address.
        seconds: of each request.
        processor_seconds: of ours, of each request; other programs on the machine do not stretch it.
        slowest: seconds and text of the slowest query seen.
    """

    list: str
    what: str
    url: str
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


def pages(client: Client) -> Iterator[Page]:
    """First, tenth and last page of each list, each choice of each filter, each search, and a record."""
    yield Page("overview", "first page", reverse("admin:index"))
    for name, searches in SEARCHES.items():
        url = reverse(f"admin:{name.replace('.', '_')}_changelist")
        yield Page(name, "first page", url)
        changelist = client.get(url).context_data["cl"]
        yield Page(name, "tenth page", f"{url}?p=10")
        yield Page(name, "last page", f"{url}?p={changelist.paginator.num_pages}")
        for query in _choices(changelist):
            yield Page(name, f"filter {query.lstrip('?')}", url + query)
        for term in searches:
            yield Page(name, f"search {term}", f"{url}?{urlencode({'q': term})}")
        yield Page(name, "search nothing-like-it", f"{url}?q=nothing-like-it")
        yield Page(name, "a record", reverse(f"admin:{name.replace('.', '_')}_change", args=[_some_key(name)]))


def measure(client: Client, page: Page) -> None:
    """Request a page once.

    Raises:
        SystemExit: the answer is no page.
    """
    with _queries_timed(page):
        began, worked = time.perf_counter(), time.process_time()
        response = client.get(page.url)
        page.seconds.append(time.perf_counter() - began)
        page.processor_seconds.append(time.process_time() - worked)
    if response.status_code != 200:
        raise SystemExit(f"{page.url} answered {response.status_code}")


def _choices(changelist: Any) -> Iterator[str]:
    for spec in changelist.filter_specs:
        for choice in spec.choices(changelist):
            if not choice["selected"]:
                yield choice["query_string"]


def _some_key(name: str) -> object:
    model = next(one for one in admin.site._registry if one._meta.label_lower == name)
    return model._default_manager.order_by("pk").values_list("pk", flat=True)[:1].get()


@contextmanager
def _queries_timed(page: Page) -> Iterator[None]:
    def timed(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            page.slowest = max(page.slowest, (time.perf_counter() - began, sql))

    with connection.execute_wrapper(timed):
        yield
