"""Customer search: Stripe's query language over an index that lags behind the writes.

Source: docs.stripe.com/search. Data is searchable in under a minute as a rule; lists read their own writes, search
does not.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.errors import StripeError

MAX_CLAUSES = 10
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<joint>AND|OR)\b
      | (?P<negated>-)?
        (?P<field>metadata\[(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\]|[a-z_]+)
        \s*(?P<operator>>=|<=|:|~|>|<)\s*
        (?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|-?[0-9]+|null)
    )\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_STRINGS = frozenset({"email", "name", "phone"})

Predicate = Callable[[dict[str, Any]], bool]


class SearchIndex:
    """What search sees: each customer as it was ``lag`` seconds ago."""

    def __init__(self, clock: Clock, lag: float) -> None:
        self.lag = lag
        self._clock = clock
        self._waiting: deque[tuple[float, dict[str, Any]]] = deque()
        self._seen: dict[str, dict[str, Any]] = {}

    def put(self, customer: dict[str, Any], *, at_once: bool = False) -> None:
        self._waiting.append((0.0 if at_once else self._clock.now() + self.lag, customer))

    def clear(self) -> None:
        self._waiting.clear()
        self._seen.clear()

    def page(self, *, query: str, limit: int, page: str | None) -> dict[str, Any]:
        """The search result object for one page; raises StripeError 400 for a query Stripe would refuse."""
        self._catch_up()
        matches = query_predicate(query)
        found = [customer for customer in self._seen.values() if matches(customer)]
        found.sort(key=lambda customer: customer["created"], reverse=True)
        start = _page_start(page)
        has_more = len(found) > start + limit
        return {
            "object": "search_result",
            "data": found[start : start + limit],
            "has_more": has_more,
            "next_page": f"page_{start + limit}" if has_more else None,
            "url": "/v1/customers/search",
        }

    def _catch_up(self) -> None:
        now = self._clock.now()
        while self._waiting and self._waiting[0][0] <= now:
            _, customer = self._waiting.popleft()
            # Later news of the same customer goes last, so that equal creation times list the newest first.
            self._seen.pop(customer["id"], None)
            if not customer.get("deleted"):
                self._seen[customer["id"]] = customer


def query_predicate(query: str) -> Predicate:
    """What the query asks of a customer; raises StripeError 400 when it is malformed."""
    clauses: list[Predicate] = []
    joints: set[str] = set()
    position, expects_clause = 0, True
    while position < len(query):
        match = _TOKEN.match(query, position)
        if match is None or bool(match["joint"]) is expects_clause:
            raise _malformed(query)
        if match["joint"]:
            joints.add(match["joint"].upper())
            expects_clause = True
        else:
            # Clauses that merely follow one another are joined by AND.
            clauses.append(_clause(match))
            expects_clause = False
            following = _TOKEN.match(query, match.end())
            if following is not None and not following["joint"]:
                joints.add("AND")
                expects_clause = True
        position = match.end()
    if expects_clause:
        raise _malformed(query)
    if len(joints) > 1:
        raise StripeError(400, "You cannot combine AND and OR in the same search query.", param="query")
    if len(clauses) > MAX_CLAUSES:
        raise StripeError(400, f"A search query can have at most {MAX_CLAUSES} clauses.", param="query")
    combine = any if "OR" in joints else all
    return lambda customer: combine(clause(customer) for clause in clauses)


def _clause(match: re.Match[str]) -> Predicate:
    field, operator, value = match["field"], match["operator"], _text(match["value"])
    if field.lower().startswith("metadata["):
        test = _metadata_clause(_text(field[len("metadata[") : -1]) or "", operator, value)
    elif field in _STRINGS:
        test = _string_clause(field, operator, value)
    elif field == "created":
        test = _number_clause(field, operator, value)
    else:
        raise StripeError(
            400, f"Field `{field}` is an unsupported search field for resource `customers`.", param="query"
        )
    if match["negated"]:
        return lambda customer: not test(customer)
    return test


def _metadata_clause(key: str, operator: str, value: str | None) -> Predicate:
    if operator != ":":
        raise StripeError(400, f"The `{operator}` operator is not supported for metadata.", param="query")
    if value is None:
        return lambda customer: key not in customer["metadata"]
    return lambda customer: bool(customer["metadata"].get(key) == value)


def _string_clause(field: str, operator: str, value: str | None) -> Predicate:
    if value is None:
        return lambda customer: not customer[field]
    wanted = value.casefold()
    if operator == ":":
        return lambda customer: (customer[field] or "").casefold() == wanted
    if operator == "~":
        if len(wanted) < 3:
            raise StripeError(400, "Substring search needs at least 3 characters.", param="query")
        return lambda customer: wanted in (customer[field] or "").casefold()
    raise StripeError(400, f"The `{operator}` operator is not supported for `{field}`.", param="query")


def _number_clause(field: str, operator: str, value: str | None) -> Predicate:
    tests: dict[str, Callable[[int, int], bool]] = {
        ":": lambda a, b: a == b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
        ">=": lambda a, b: a >= b,
        "<=": lambda a, b: a <= b,
    }
    if value is None or operator not in tests or re.fullmatch(r"-?[0-9]{1,15}", value) is None:
        raise StripeError(400, f"Invalid search value for `{field}`.", param="query")
    return lambda customer: tests[operator](customer[field], int(value))


def _text(value: str) -> str | None:
    if value.lower() == "null":
        return None
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] in "\"'" else value


def _page_start(page: str | None) -> int:
    if page is None:
        return 0
    if re.fullmatch(r"page_[0-9]{1,9}", page) is None:
        raise StripeError(400, "Invalid page.", param="page")
    return int(page.removeprefix("page_"))


def _malformed(query: str) -> StripeError:
    return StripeError(
        400,
        f'We were unable to parse your search query: {query[:100]}. Try using the format `metadata["key"]:"value"` '
        'to query for metadata or key:"value" to query for other fields.',
        param="query",
    )
