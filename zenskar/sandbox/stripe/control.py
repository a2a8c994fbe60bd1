"""The control API under ``/_sandbox/``: state, faults, clock and webhooks, for other processes and the demonstration.

JSON in, JSON out, with the sandbox's own key. The page for people at ``/`` is in ``pages``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from zenskar.sandbox.stripe import dashboard, pages
from zenskar.sandbox.stripe.arguments import arguments_check
from zenskar.sandbox.stripe.calls import Response
from zenskar.sandbox.stripe.errors import StripeError
from zenskar.sandbox.stripe.limits import SANDBOX_PER_SECOND

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

PREFIX = "/_sandbox/"


def handle(
    sandbox: StripeSandbox, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> Response:
    """Answer whatever lies outside ``/v1/``."""
    if not path.startswith(PREFIX):
        return pages.handle(sandbox, method, path, query, headers, body)
    if not sandbox.keys.opens(headers):
        return _json(401, {"error": {"message": "The control API needs the sandbox's key."}})
    action, id = path.removeprefix(PREFIX), ""
    found = _ACTIONS.get((method, action))
    if found is None:
        parent, _, id = action.rpartition("/")
        found = _ACTIONS.get((method, f"{parent}/*"))
    if found is None:
        return _json(404, {"error": {"message": f"Nothing to {method} at {path}."}})
    try:
        document = orjson.loads(body) if body else {}
        if not isinstance(document, dict):
            raise ValueError("The body is a JSON object.")
        arguments_check(method, action, document)
        return _json(200, found(sandbox, id, document))
    except StripeError as error:
        return _json(error.status, error.body(""))
    except KeyError as error:
        return _json(404, {"error": {"message": f"No such thing: {error.args[0]}"}})
    except (ValueError, TypeError) as error:
        return _json(400, {"error": {"message": str(error)}})


def _state(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return {
        "account": sandbox.account_id,
        "now": sandbox.clock.now(),
        "customers": len(sandbox.customers),
        "events": len(sandbox.store.events),
        "requests": len(sandbox.request_log),
        "faults": sandbox.faults.as_list(),
        "webhooks": sandbox.webhooks.as_dict(),
    }


def _reset(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.reset()
    return _state(sandbox, id, document)


def _customers(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return {"data": list(sandbox.customers.values())}


def _customer_add(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return dashboard.customer_add(sandbox, document)


def _customers_fill(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    count, days = int(document["count"]), int(document.get("days", 0))
    return {"added": dashboard.customers_fill(sandbox, count, days=days)}


def _customer_edit(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return dashboard.customer_edit(sandbox, id, document)


def _customer_remove(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    dashboard.customer_remove(sandbox, id)
    return {"id": id, "deleted": True}


def _requests(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return {"data": [line.as_dict() for line in sandbox.request_log]}


def _requests_clear(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.request_log.clear()
    return {"data": []}


def _faults(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return {"data": sandbox.faults.as_list()}


def _fault_add(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.faults.add(**document)
    return _faults(sandbox, id, {})


def _faults_clear(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.faults.clear(seed=document.get("seed"))
    return _faults(sandbox, id, {})


def _clock(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return {"now": sandbox.clock.advance(float(document.get("advance", 0)))}


def _limits(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    per_second = document.get("per_second", SANDBOX_PER_SECOND)
    if per_second is None:
        sandbox.limits.switch_off()
    else:
        sandbox.limits.switch_on(int(per_second))
    return {"per_second": per_second}


def _search(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.search.lag = float(document["lag"])
    return {"lag": sandbox.search.lag}


def _webhooks(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return sandbox.webhooks.as_dict()


def _webhooks_script(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.webhooks.script(**document)
    return sandbox.webhooks.as_dict()


def _webhooks_hold(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.webhooks.hold()
    return sandbox.webhooks.as_dict()


def _webhooks_release(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.webhooks.release(**document)
    return sandbox.webhooks.as_dict()


def _webhooks_take(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    return {"data": [{"headers": each.headers, "body": each.body.decode()} for each in sandbox.webhooks.pending()]}


def _webhooks_resend(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.webhooks.resend(document["event"])
    return sandbox.webhooks.as_dict()


def _webhooks_roll(sandbox: StripeSandbox, id: str, document: dict[str, Any]) -> Any:
    sandbox.webhooks.roll_secret(**document)
    return sandbox.webhooks.as_dict()


def _json(status: int, document: Any) -> Response:
    return Response(
        status=status,
        headers={"Content-Type": "application/json", "Cache-Control": "no-store"},
        body=orjson.dumps(document, option=orjson.OPT_INDENT_2),
    )


_Action = Callable[["StripeSandbox", str, dict[str, Any]], Any]
_ACTIONS: dict[tuple[str, str], _Action] = {
    ("GET", "state"): _state,
    ("POST", "reset"): _reset,
    ("GET", "customers"): _customers,
    ("POST", "customers"): _customer_add,
    ("POST", "customers/fill"): _customers_fill,
    ("POST", "customers/*"): _customer_edit,
    ("DELETE", "customers/*"): _customer_remove,
    ("GET", "requests"): _requests,
    ("DELETE", "requests"): _requests_clear,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _fault_add,
    ("DELETE", "faults"): _faults_clear,
    ("GET", "clock"): _clock,
    ("POST", "clock"): _clock,
    ("POST", "limits"): _limits,
    ("POST", "search"): _search,
    ("GET", "webhooks"): _webhooks,
    ("POST", "webhooks/script"): _webhooks_script,
    ("POST", "webhooks/hold"): _webhooks_hold,
    ("POST", "webhooks/release"): _webhooks_release,
    ("POST", "webhooks/pending"): _webhooks_take,
    ("POST", "webhooks/resend"): _webhooks_resend,
    ("POST", "webhooks/roll"): _webhooks_roll,
}
