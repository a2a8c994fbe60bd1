from __future__ import annotations

import getpass
import hashlib
import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from customers.importing import runs
from customers.importing.batches import customers_import
from customers.models import Customer, ImportRun
from customers.services import customer_create, customer_delete
from operations.models import AuditEntry
from tests.customers.published import published
from tests.customers.races import in_threads

pytestmark = [pytest.mark.feature("A9", "A16"), pytest.mark.django_db]


def imported(path: Path, *options: str) -> dict[str, Any]:
    """Run the command; its outcome, with its exit status as ``exit``."""
    out = StringIO()
    status = 0
    try:
        call_command("import_customers", str(path), "--json", *options, stdout=out)
    except SystemExit as exc:
        status = int(str(exc.code))
    return {**json.loads(out.getvalue()), "exit": status}


def rejected(path: Path) -> dict[int, str]:
    """Reason by number of line, of the file of rejected records."""
    lines = path.with_name(path.name + ".rejected.ndjson").read_text().splitlines()
    return {row["line"]: row["reason"] for row in map(json.loads, lines)}


def file_of(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_it_imports_csv_with_an_event_for_each_customer(tmp_path: Path) -> None:
    path = file_of(
        tmp_path,
        "customers.csv",
        "\ufeffname,email,phone,address.city,address.country,metadata.plan\r\n"
        "Ann,Ann@Example.com,+49,Bonn,de,gold\r\n"
        '"Bob ""B"" Jones, Jr.",bob@example.com,,"Bad\tTölz",,\r\n'.replace("\t", " ")
        + "\r\n"
        "Cid,,,,,\r\n",
    )

    outcome = imported(path)

    assert (outcome["created"], outcome["rejected"], outcome["exit"]) == (3, 0, 0)
    ann, bob, cid = Customer.objects.order_by("pk")
    assert (ann.name, ann.email, ann.phone, ann.address, ann.metadata) == (
        "Ann",
        "Ann@example.com",
        "+49",
        {"city": "Bonn", "country": "DE"},
        {"plan": "gold"},
    )
    assert (bob.name, bob.address, cid.email, cid.version) == ('Bob "B" Jones, Jr.', {"city": "Bad Tölz"}, None, 1)
    events = published()
    assert [event.aggregate_id for event in events] == [str(row.pk) for row in (ann, bob, cid)]
    assert {(event.type, event.origin, event.headers["priority"]) for event in events} == {
        ("customer.created", "import", "bulk")
    }
    assert events[0].payload["changed"] == ["name", "email", "phone", "address", "metadata"]
    assert list(tmp_path.iterdir()) == [path]


def test_it_imports_ndjson_as_the_api_takes_it(tmp_path: Path) -> None:
    rows = [{"name": "Ann", "email": "ann@example.com", "address": {"city": None}}, {"email": "bob@example.com"}]
    path = file_of(tmp_path, "customers.ndjson", "\n\n".join(map(json.dumps, rows)))

    outcome = imported(path)

    assert (outcome["created"], outcome["exit"]) == (2, 0)
    assert list(Customer.objects.order_by("pk").values_list("name", "email")) == [
        ("Ann", "ann@example.com"),
        (None, "bob@example.com"),
    ]


def test_it_reports_bad_lines_of_ndjson_with_number_and_reason_and_imports_the_rest(tmp_path: Path) -> None:
    Customer.objects.create(email="taken@example.com")
    lines: list[tuple[bytes, str]] = [
        (b'{"name": "First", "email": "first@example.com"}', ""),
        (b'{"name": ', "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"name": "\xff"}', "not UTF-8"),
        (b'{"name": "\\u0000"}', "cannot be stored"),
        (b'{"name": "\x00"}', "not JSON"),
        (b'{"name": "\\ud800"}', "cannot be stored"),
        (b'{"name": NaN}', "NaN"),
        (b"[" * 100_000, "nested"),
        (b'{"name": "' + b"x" * 300_000 + b'"}', "more than"),
        (b'{"name": "A", "email": "nonsense"}', "@-sign"),
        (b'{"name": "A", "nmae": "B"}', "no such field"),
        (b"{}", "needs a name or an e-mail"),
        (b'{"email": "TAKEN@example.com"}', "has this e-mail"),
        (b'{"email": "FIRST@example.com"}', "has this e-mail"),
        (b'{"name": "A", "metadata": {' + b", ".join(b'"%d": "v"' % n for n in range(50)) + b"}}", "at most 49 keys"),
        (b'{"name": "Last", "email": "last@example.com"}', ""),
    ]
    path = file_of(tmp_path, "customers.ndjson", b"\n".join(line for line, _ in lines))

    outcome = imported(path)

    assert (outcome["created"], outcome["rejected"], outcome["exit"]) == (2, 15, 3)
    assert sorted(filter(None, Customer.objects.values_list("name", flat=True))) == ["First", "Last"]
    reasons = rejected(path)
    assert list(reasons) == [number for number, (_, reason) in enumerate(lines, 1) if reason]
    for number, (_, reason) in enumerate(lines, 1):
        assert reason in reasons.get(number, ""), number


def test_it_reports_bad_lines_of_csv_with_number_and_reason_and_imports_the_rest(tmp_path: Path) -> None:
    lines: list[tuple[bytes, str]] = [
        (b"name,email", ""),
        (b"First,first@example.com", ""),
        (b"Too,many@example.com,cells", "3 cells"),
        (b"Few", "1 cells"),
        (b"\xff,x@example.com", "not UTF-8"),
        (b"N\x00UL,nul@example.com", "cannot be stored"),
        (b'5" pipe,pipe@example.com', ""),
        (b'"Closed by the next,open@example.com', "not CSV"),
        (b"After,after@example.com", ""),
        (b'"Junk" after,junk@example.com', "not CSV"),
        (b"B" * 300_000 + b",big@example.com", "more than"),
        (b",", "needs a name or an e-mail"),
        (b"Bad,bad@", "after the @-sign"),
        (b"Last,last@example.com", ""),
        (b'"Two\nlines",two@example.com', "Control characters"),
    ]
    path = file_of(tmp_path, "customers.csv", b"\n".join(line for line, _ in lines))

    outcome = imported(path)

    assert sorted(Customer.objects.values_list("name", flat=True)) == ['5" pipe', "After", "First", "Last"]
    assert (outcome["created"], outcome["rejected"], outcome["exit"]) == (4, 10, 3)
    reasons = rejected(path)
    assert list(reasons) == [number for number, (_, reason) in enumerate(lines, 1) if reason]
    for number, (_, reason) in enumerate(lines, 1):
        assert reason in reasons.get(number, ""), number


def test_it_takes_a_cell_of_several_lines_as_one_record(tmp_path: Path) -> None:
    path = file_of(tmp_path, "c.csv", 'name,metadata.note\nAnn,"one\r\ntwo"\n\nBob,three\n,four\n')

    outcome = imported(path)

    assert outcome["created"] == 2
    assert Customer.objects.get(name="Ann").metadata == {"note": "one\ntwo"}
    assert list(rejected(path)) == [6]


def test_it_loses_one_line_to_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    rows = "".join(f"N{n},{n}@example.com\n" for n in range(100))
    path = file_of(tmp_path, "c.csv", f'name,email\n"Open,open@example.com\n{rows}"Open,again@example.com\nLast,\n')

    outcome = imported(path)

    assert outcome["created"] == 101
    assert rejected(path) == dict.fromkeys([2, 103], "A quote is opened and not closed.")


@pytest.mark.parametrize(("content", "reason"), [
    ("", "no header"),
    ("\n\n", "no header"),
    ("name;email\nAnn;a@example.com", "Unknown columns: name;email"),
    ("name,street\nAnn,x", "Unknown columns: street"),
    ("name,name\nAnn,x", "twice"),
    ('"name\n', "not closed"),
    (b"\xff\xfen\x00a\x00m\x00e\x00", "not UTF-8"),
])  # fmt: skip
def test_it_refuses_a_csv_file_that_is_none(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        imported(file_of(tmp_path, "c.csv", content))

    assert Customer.objects.count() == 0


def test_it_refuses_what_is_no_file_or_of_no_known_format(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not a file"):
        imported(tmp_path)
    with pytest.raises(CommandError, match="give --format"):
        imported(file_of(tmp_path, "customers.txt", "name\nAnn"))

    assert imported(tmp_path / "customers.txt", "--format", "csv")["created"] == 1


def test_it_writes_nothing_in_a_dry_run_and_foretells_the_outcome(tmp_path: Path) -> None:
    Customer.objects.create(email="taken@example.com")
    content = "name,email\nA,a@example.com\nB,A@example.com\nC,Taken@example.com\n,\nE,e@example.com\n"
    path = file_of(tmp_path, "c.csv", content)

    foretold = imported(path, "--dry-run")

    assert (Customer.objects.count(), ImportRun.objects.count(), published()) == (1, 0, [])
    assert (foretold["created"], foretold["rejected"], foretold["exit"], foretold["dry_run"]) == (2, 3, 3, True)
    lines = [json.loads(line) for line in Path(foretold["rejected_file"]).read_text().splitlines()]
    done = imported(path)
    assert (done["created"], done["rejected"]) == (2, 3)
    assert [line["line"] for line in lines] == list(rejected(path)) == [3, 4, 5]


def test_it_does_nothing_when_the_same_content_was_imported(tmp_path: Path) -> None:
    content = "name,email\nNo mail,\nA,a@example.com\n,\n"
    imported(file_of(tmp_path, "first.csv", content))

    again = imported(file_of(tmp_path, "copy.csv", content))

    assert (again["created"], again["rejected"], again["was_finished"], again["exit"]) == (2, 1, True, 0)
    assert (Customer.objects.count(), len(published())) == (2, 2)


def test_it_imports_the_same_content_again_when_told_so(tmp_path: Path) -> None:
    path = file_of(tmp_path, "c.csv", "name,email\nA,a@example.com\n")
    imported(path)
    customer_delete(customer_id=Customer.objects.get().pk)

    again = imported(path, "--again")

    assert (again["created"], Customer.objects.active().count()) == (1, 1)


@pytest.mark.feature("C16")
def test_it_leaves_a_trail_of_who_imported_what(tmp_path: Path) -> None:
    path = file_of(tmp_path, "c.csv", "name,email\nA,a@example.com\nB,b\n")

    imported(path, "--dry-run")
    imported(path)
    imported(path)
    imported(path, "--again")

    entries = list(AuditEntry.objects.order_by("pk"))
    assert [entry.action for entry in entries] == [
        "import.started",
        "import.finished",
        "import.forgotten",
        "import.started",
        "import.finished",
    ]
    assert {entry.actor for entry in entries} == {f"shell:{getpass.getuser()}"}
    finished = entries[1]
    assert finished.target.startswith("import:")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert finished.detail == {"file": "c.csv", "sha256": digest, "records": 2, "created": 1, "rejected": 1}
    assert entries[4].detail["created"] == 0
    assert len({entry.correlation_id for entry in entries[:2]}) == 1


def test_it_imports_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"c\xff.csv")
    path.write_text("name,email\nA,a@example.com\nB,b\n")

    outcome = imported(path)

    assert outcome["rejected_file"].endswith("/c\ufffd.csv.rejected.ndjson")
    assert (outcome["created"], ImportRun.objects.get().file_name) == (1, "c\ufffd.csv")


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"N{n},{n}@example.com" if n % 7 else f"N{n},bad" for n in range(1, 51)]
    path = file_of(tmp_path, "c.csv", "\n".join(["name,email", *rows]))
    rejects = path.with_name("c.csv.rejected.ndjson")

    class Killed(BaseException):
        pass

    def stop_after_30(progress: runs.Progress) -> None:
        if progress.created + progress.rejected >= 30:
            # What a batch wrote whose transaction never committed.
            with rejects.open("ab") as file:
                file.write(b'{"line": 99999, "reason": "half a li')
            raise Killed

    with pytest.raises(Killed):
        runs.file_import(
            path, format="csv", rejected_path=rejects, actor="shell:ann", batch_size=10, on_progress=stop_after_30
        )
    outcome = runs.file_import(path, format="csv", rejected_path=rejects, actor="shell:ann", batch_size=10)

    assert (outcome.created, outcome.rejected, outcome.resumed_at) == (43, 7, 30)
    assert sorted(rejected(path)) == [n + 1 for n in range(7, 51, 7)]
    assert sorted(Customer.objects.values_list("name", flat=True)) == sorted(f"N{n}" for n in range(1, 51) if n % 7)
    assert len(published()) == 43


@pytest.mark.django_db(transaction=True)
def test_it_goes_on_after_its_process_was_killed(tmp_path: Path) -> None:
    rows = [f"N{n},{n}@example.com" if n % 100 else f"N{n},bad" for n in range(1, 10_001)]
    path = file_of(tmp_path, "c.csv", "\n".join(["name,email", *rows]))
    parameters = connection.get_connection_params()
    url = f"postgresql://{parameters['user']}@{parameters['host']}:{parameters['port']}/{parameters['dbname']}"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "manage.py", "import_customers", str(path)],
        env={**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "zenskar.settings"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        while process.poll() is None and not Customer.objects.exists():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(0.01)")
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    before = Customer.objects.count()

    outcome = imported(path)

    assert process.returncode == -signal.SIGKILL, errors
    assert 0 < before < 9_900
    assert (outcome["created"], outcome["rejected"], outcome["exit"]) == (9_900, 100, 3)
    assert outcome["resumed_at"] >= before
    assert Customer.objects.count() == len({event.aggregate_id for event in published()}) == 9_900
    assert len(rejected(path)) == 100


def test_it_lets_one_process_at_a_time_import_a_file(tmp_path: Path) -> None:
    path = file_of(tmp_path, "c.csv", "name,email\n" + "".join(f"N{n},{n}@example.com\n" for n in range(30)))
    other = path.with_name("elsewhere.ndjson")
    taken: list[runs.Outcome] = []

    def interfere(progress: runs.Progress) -> None:
        if not taken:
            with pytest.raises(runs.ImportBusy):
                runs.file_import(
                    path, format="csv", rejected_path=path.with_name("c.rejected"), actor="shell:ann", batch_size=10
                )
            taken.append(runs.file_import(path, format="csv", rejected_path=other, actor="shell:ann", batch_size=10))

    with pytest.raises(runs.ImportBusy):
        runs.file_import(
            path,
            format="csv",
            rejected_path=path.with_name("c.rejected"),
            actor="shell:ann",
            batch_size=10,
            on_progress=interfere,
        )

    assert taken[0].created == 30
    assert Customer.objects.count() == 30


@pytest.mark.django_db(transaction=True)
@pytest.mark.feature("C3")
def test_it_never_makes_a_second_customer_of_an_email_that_the_api_takes_meanwhile() -> None:
    rows = [{"name": f"Import {n}", "email": f"{n}@example.com"} for n in range(50)]

    def api() -> None:
        for n in reversed(range(50)):
            try:
                customer_create(name=f"Api {n}", email=f"{n}@EXAMPLE.com")
            except Exception as exc:  # noqa: BLE001 - only this one error may come
                assert type(exc).__name__ == "EmailTaken"

    errors = in_threads(api, lambda: customers_import(rows=rows), lambda: customers_import(rows=rows[::-1]))

    assert errors == []
    assert Customer.objects.count() == len(published()) == 50


def test_it_imports_all_of_a_batch_or_nothing() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        customers_import(rows=[{"name": "A"}, {"name": "B"}])
        raise ZeroDivisionError

    assert (Customer.objects.count(), published()) == (0, [])


def test_the_same_content_again_is_one_clear_line_and_no_failure(tmp_path: Path) -> None:
    path = file_of(tmp_path, "customers.csv", "name,email\nAnn,ann@example.com\nBad,bad@\n")
    out = StringIO()

    first = imported(path)
    call_command("import_customers", str(path), stdout=out)
    again = imported(path, "--again")

    assert first["exit"] == 3
    assert out.getvalue() == "Nothing to do: this content was imported before (--again imports it once more).\n"
    assert (again["created"], again["rejected"], again["exit"]) == (0, 2, 3)


def test_it_counts_one_as_one(tmp_path: Path) -> None:
    path = file_of(tmp_path, "customers.csv", "name,email\nAnn,ann@example.com\nBad,bad@\n")
    out = StringIO()

    with pytest.raises(SystemExit):
        call_command("import_customers", str(path), stdout=out)

    assert "1 customer created, 1 record rejected (see " in out.getvalue()
