from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.sandbox.stripe.calling import send
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.core import StripeSandbox


def test_it_finds_everything_again(tmp_path: Path) -> None:
    path = tmp_path / "stripe.sqlite3"
    first = StripeSandbox(state=path)
    ids = [send(first, "POST", "/v1/customers", {"name": str(n)}, key=f"k{n}").json()["id"] for n in range(3)]
    send(first, "DELETE", f"/v1/customers/{ids[0]}")
    account_id = first.account_id
    first.close()

    second = StripeSandbox(state=path)
    listed = [customer["id"] for customer in send(second, "GET", "/v1/customers").json()["data"]]
    replayed = send(second, "POST", "/v1/customers", {"name": "1"}, key="k1")
    deleted = send(second, "GET", f"/v1/customers/{ids[0]}").json()
    found = send(second, "GET", "/v1/customers/search", {"query": "name:'2'"}).json()["data"]
    waiting = [webhook.event["type"] for webhook in second.webhooks.pending()]
    second.close()

    assert second.account_id == account_id
    assert listed == [ids[2], ids[1]]
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert deleted == {"id": ids[0], "object": "customer", "deleted": True}
    assert [customer["id"] for customer in found] == [ids[2]]
    assert waiting == ["customer.created"] * 3 + ["customer.deleted"]
    assert path.stat().st_mode & 0o077 == 0


def test_it_drops_old_keys_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "stripe.sqlite3"
    first = StripeSandbox(state=path, clock=Clock(frozen_at=1_800_000_000))
    send(first, "POST", "/v1/customers", {"name": "old"}, key="old")
    first.clock.advance(24 * 3600 - 1)
    send(first, "POST", "/v1/customers", {"name": "new"}, key="new")
    first.close()

    second = StripeSandbox(state=path, clock=Clock(frozen_at=1_800_000_000 + 24 * 3600))
    kept = [key for key, _ in second.store.idempotency.items()]
    second.close()

    assert kept == ["new"]


def test_it_keeps_the_order_over_several_starts(tmp_path: Path) -> None:
    path = tmp_path / "stripe.sqlite3"
    ids: list[str] = []
    for start in range(3):
        sandbox = StripeSandbox(state=path)
        sandbox.webhooks.pending()
        ids.append(send(sandbox, "POST", "/v1/customers", {"name": str(start)}).json()["id"])
        sandbox.close()

    sandbox = StripeSandbox(state=path)
    listed = [customer["id"] for customer in send(sandbox, "GET", "/v1/customers").json()["data"]]
    sandbox.close()

    assert listed == ids[::-1]


def test_it_loses_nothing_that_it_answered_when_killed(tmp_path: Path) -> None:
    path = tmp_path / "stripe.sqlite3"
    command = [sys.executable, "-m", "zenskar.sandbox.stripe", "--port", "0", "--state", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Authorization": "Bearer sk_test_sandbox", "Content-Type": "application/x-www-form-urlencoded"}
    ids = []
    for number in range(20):
        connection.request("POST", "/v1/customers", body=f"name={number}", headers=headers)
        ids.append(json.loads(connection.getresponse().read())["id"])
    connection.close()

    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    process.stdout.close()

    sandbox = StripeSandbox(state=path)
    kept = set(sandbox.customers)
    events = [event["data"]["object"]["id"] for event in sandbox.events]
    sandbox.close()
    assert kept == set(ids)
    assert events == ids


def test_it_ends_cleanly_when_told_to(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zenskar.sandbox.stripe", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()

    process.terminate()
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (0, "")


def test_it_refuses_a_live_key_on_the_command_line() -> None:
    command = [sys.executable, "-m", "zenskar.sandbox.stripe", "--port", "0", "--api-key", "sk_live_secret"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "test keys only" in done.stderr
    assert "sk_live_secret" not in done.stderr
