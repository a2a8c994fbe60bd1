"""The page for people at ``/``: customers with a form to change them, events, and the last requests.

It shows what lies in the sandbox without a key, so it answers only on a host name of this machine (a foreign name
that points here is refused: DNS rebinding) and, when the server is exposed, asks the browser for the key. A form needs
the token of the page and an origin of its own: another site's page can neither read the token nor claim the origin.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from zenskar.sandbox.stripe import dashboard
from zenskar.sandbox.stripe.calls import Response
from zenskar.sandbox.stripe.errors import StripeError

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

SHOWN = 50
_LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_EDITABLE = ("name", "email", "phone")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1a1f36 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .3rem .5rem; border-bottom: 1px solid #e3e8ee }
input { font: inherit; padding: .2rem .4rem; width: 100%; box-sizing: border-box } button { font: inherit }
code { font-size: .85em } .message { background: #fff4d6; padding: .5rem 1rem }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Stripe sandbox</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<h1>Stripe sandbox <code>{account}</code></h1>
<p>A Stripe account of this machine. A change made here is a change made in Stripe's dashboard.</p>
{message}
<h2>Customers</h2>
<table>
<tr><th>Id</th><th>Name</th><th>E-mail</th><th>Phone</th><th></th><th></th></tr>
{customers}
</table>
<h2>Events</h2>
<table>
<tr><th>Time</th><th>Type</th><th>Object</th><th>Idempotency key</th><th>Webhooks waiting</th></tr>
{events}
</table>
<h2>Requests</h2>
<table>
<tr><th>Time</th><th>Request</th><th>Status</th><th>Idempotency key</th><th></th></tr>
{requests}
</table>
</body>
</html>
"""
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def handle(
    sandbox: StripeSandbox, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
) -> Response:
    """Answer a browser."""
    if _host_name(headers) not in _LOCAL_NAMES:
        return _text(403, "This page answers on 127.0.0.1 and localhost only.")
    if sandbox.exposed and not sandbox.keys.opens(headers):
        refusal = _text(401, "Log in with the sandbox's key as the user name and no password.")
        refusal.headers["WWW-Authenticate"] = 'Basic realm="Stripe sandbox"'
        return refusal
    if method == "GET" and path == "/style.css":
        return Response(status=200, headers={**_HEADERS, "Content-Type": "text/css"}, body=_STYLE.encode())
    if method == "GET" and path == "/":
        return _page(sandbox)
    if method == "POST" and path in ("/add", "/edit", "/delete"):
        return _submitted(sandbox, path, headers, body)
    return _text(404, "Not found.")


def _submitted(sandbox: StripeSandbox, path: str, headers: Mapping[str, str], body: bytes) -> Response:
    form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace"), True).items()}
    token_fits = secrets.compare_digest(form.get("token", "").encode(), sandbox.page_token.encode())
    if not token_fits or not _same_origin(headers):
        return _text(403, "This form did not come from the sandbox's own page.")
    try:
        if path == "/delete":
            dashboard.customer_remove(sandbox, form.get("id", ""))
        elif path == "/edit":
            dashboard.customer_edit(sandbox, form.get("id", ""), _edited(form))
        else:
            dashboard.customer_add(sandbox, _edited(form))
    except StripeError as error:
        return _page(sandbox, status=error.status, message=error.message)
    return Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})


def _edited(form: Mapping[str, str]) -> dict[str, str]:
    return {name: form[name].strip() for name in _EDITABLE if name in form}


def _page(sandbox: StripeSandbox, *, status: int = 200, message: str = "") -> Response:
    token = f'<input type="hidden" name="token" value="{sandbox.page_token}">'
    with sandbox.store.lock:
        newest = (each for each in sandbox.store.customers.newest_first() if not each.get("deleted"))
        customers = list(islice(newest, SHOWN))
        events = list(islice(sandbox.store.events.newest_first(), SHOWN))
    requests = list(sandbox.request_log)[-SHOWN:][::-1]
    text = _PAGE.format(
        account=_escaped(sandbox.account_id),
        message=f'<p class="message" role="alert">{_escaped(message)}</p>' if message else "",
        customers=_add_row(token) + "".join(_customer_row(customer, token) for customer in customers),
        events="".join(_event_row(event) for event in events),
        requests="".join(_request_row(vars(line)) for line in requests),
    )
    return Response(status=status, headers=dict(_HEADERS), body=text.encode())


def _add_row(token: str) -> str:
    inputs = "".join(f'<td><input form="add" name="{name}" aria-label="{name}"></td>' for name in _EDITABLE)
    form = f'<form id="add" method="post" action="/add">{token}<button>Create</button></form>'
    return f"<tr><td>new</td>{inputs}<td>{form}</td><td></td></tr>"


def _customer_row(customer: Mapping[str, Any], token: str) -> str:
    id = _escaped(customer["id"])
    inputs = "".join(
        f'<td><input form="edit-{id}" name="{name}" aria-label="{name}" value="{_escaped(customer[name])}"></td>'
        for name in _EDITABLE
    )
    hidden = f'{token}<input type="hidden" name="id" value="{id}">'
    edit = f'<form id="edit-{id}" method="post" action="/edit">{hidden}<button>Save</button></form>'
    delete = f'<form method="post" action="/delete">{hidden}<button>Delete</button></form>'
    return f"<tr><td><code>{id}</code></td>{inputs}<td>{edit}</td><td>{delete}</td></tr>"


def _event_row(event: Mapping[str, Any]) -> str:
    return _row(
        _time(event["created"]),
        event["type"],
        event["data"]["object"]["id"],
        event["request"]["idempotency_key"],
        event["pending_webhooks"],
    )


def _request_row(line: Mapping[str, Any]) -> str:
    notes = [note for note in ("replayed" if line["replayed"] else "", line["fault"] or "") if note]
    return _row(
        _time(line["started_at"]),
        f"{line['method']} {line['path']}",
        line["status"],
        line["idempotency_key"],
        ", ".join(notes),
    )


def _row(*cells: object) -> str:
    return f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in cells)}</tr>"


def _escaped(value: object) -> str:
    return html.escape("" if value is None else str(value))


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _host_name(headers: Mapping[str, str]) -> str | None:
    return urlsplit(f"//{headers.get('host', '')}").hostname


def _same_origin(headers: Mapping[str, str]) -> bool:
    """Browsers send Origin with every POST; without one, the token has to do."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _text(status: int, text: str) -> Response:
    return Response(
        status=status,
        headers={"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"},
        body=f"{text}\n".encode(),
    )
