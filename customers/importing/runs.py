"""The import of one file: in batches, resumable, with a file of what was rejected.

The checkpoint moves in the transaction of each batch, so a record is imported once whatever dies in between. The file
of rejected records is written before that transaction commits, and cut back to the checkpoint's length when an import
goes on, so it too holds each rejected record once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
from django.db.models.functions import Lower
from django.utils import timezone

from customers.errors import EmailTaken, InvalidCustomer
from customers.importing.batches import customers_import
from customers.importing.records import Format, Record, records
from customers.models import Customer, ImportRun
from customers.values import customer_values
from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.errors import FieldError

BATCH: Final = 2000
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the file in one batch, about; keeps memory bounded where records are large."""


class ImportBusy(Exception):
    """Another process is importing this file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an import, over all its runs.

    Attributes:
        created: customers created (in a dry run: that would be).
        rejected: records that no customer was made of.
        resumed_at: records that earlier runs had done.
        was_finished: whether there was nothing left to do.
    """

    created: int
    rejected: int
    resumed_at: int
    was_finished: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import has come: bytes of the file read, and counts so far."""

    bytes_read: int
    created: int
    rejected: int


@dataclass(slots=True)
class _Batch:
    """Some records in order: values to insert, and rejections, each with its record."""

    taken: list[tuple[Record, dict[str, Any]]] = field(default_factory=list)
    rejected: list[tuple[Record, list[FieldError]]] = field(default_factory=list)
    size: int = 0

    def add(self, record: Record) -> None:
        self.size += 1
        if record.content is None:
            self.rejected.append((record, [FieldError(code="unreadable", detail=record.reason)]))
            return
        try:
            self.taken.append((record, customer_values(record.content, new=True)))
        except InvalidCustomer as exc:
            self.rejected.append((record, exc.errors))

    def rejected_text(self, duplicates: Sequence[Record]) -> bytes:
        taken = EmailTaken().errors
        rows = [*self.rejected, *((record, taken) for record in duplicates)]
        return b"".join(_rejected_line(*row) for row in sorted(rows, key=lambda row: row[0].line))


def file_import(
    path: Path,
    *,
    format: Format,
    rejected_path: Path,
    actor: str,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    batch_size: int = BATCH,
) -> Outcome:
    """Import the customers of a file, from where an earlier import of the same content stopped.

    Args:
        path: a regular file, which must not change meanwhile.
        format: csv or ndjson.
        rejected_path: where rejected records are written, one JSON object a line; removed when there are none.
        actor: who imports it, for the audit trail.
        on_progress: called after each batch.
        batch_size: records of one transaction, at most.

    Raises:
        UnusableFile: nothing of the file can be imported.
        ImportBusy: another process is importing it.
    """
    with path.open("rb") as file, _locked(rejected_path) as rejects:
        try:
            run = _run_of(file, path, format)
            resumed_at, was_finished = run.records_done, run.finished_at is not None
            if not was_finished:
                _audit(run, actor, "import.started")
                _cut(rejects, run)
                for batch in _batches(file, format, skip=run.records_done, size=batch_size):
                    run = _settled(run, batch, rejects)
                    on_progress(Progress(file.tell(), run.customers_created, run.records_rejected))
                _finished(run, actor)
        finally:
            # Whatever ended it: an empty file tells nothing.
            if rejects.seek(0, os.SEEK_END) == 0:
                rejected_path.unlink(missing_ok=True)
    return Outcome(run.customers_created, run.records_rejected, resumed_at, was_finished)


def file_check(
    path: Path,
    *,
    format: Format,
    rejected_path: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    batch_size: int = BATCH,
) -> Outcome:
    """What ``file_import`` would do now, without writing anything to the database."""
    created = rejected = 0
    seen: set[str] = set()
    with path.open("rb") as file, _locked(rejected_path) as rejects:
        rejects.truncate(0)
        run = ImportRun.objects.filter(content_sha256=_sha256(file), format=format).first() or ImportRun()
        for batch in _batches(file, format, skip=run.records_done, size=batch_size):
            duplicates = _duplicates(batch, seen)
            created += len(batch.taken) - len(duplicates)
            rejected += len(batch.rejected) + len(duplicates)
            rejects.write(batch.rejected_text(duplicates))
            on_progress(Progress(file.tell(), created, rejected))
        if rejected == 0:
            rejected_path.unlink()
    return Outcome(created, rejected, run.records_done, run.finished_at is not None)


def import_forget(path: Path, *, format: Format, actor: str) -> bool:
    """Forget the checkpoint of a file, so that the next import of it begins anew; returns whether there was one."""
    with path.open("rb") as file:
        digest = _sha256(file)

    def work() -> bool:
        run = ImportRun.objects.select_for_update().filter(content_sha256=digest, format=format).first()
        if run is not None:
            _audit(run, actor, "import.forgotten")
            run.delete()
        return run is not None

    return run_in_transaction(work)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest


def _run_of(file: BinaryIO, path: Path, format: Format) -> ImportRun:
    run, _ = ImportRun.objects.get_or_create(
        content_sha256=_sha256(file), format=format, defaults={"file_name": _name(path)}
    )
    return run


def _name(path: Path) -> str:
    # A name may hold bytes that are no text.
    return os.fsencode(path.name).decode(errors="replace")[-255:]


def _batches(file: BinaryIO, format: Format, *, skip: int, size: int) -> Iterator[_Batch]:
    batch = _Batch()
    began = file.tell()
    for record in islice(records(file, format), skip, None):
        batch.add(record)
        if batch.size >= size or file.tell() - began > BATCH_BYTES:
            yield batch
            batch, began = _Batch(), file.tell()
    if batch.size:
        yield batch


def _settled(run: ImportRun, batch: _Batch, rejects: BinaryIO) -> ImportRun:
    def work() -> ImportRun:
        # The row lock, and the comparison with what this process knows, keep two imports of one content from taking
        # the same batch, on whatever machines they run.
        current = ImportRun.objects.select_for_update().get(pk=run.pk)
        if current.records_done != run.records_done or current.finished_at is not None:
            raise ImportBusy(ImportBusy.__doc__)
        ids = customers_import(rows=[values for _, values in batch.taken])
        duplicates = [record for (record, _), created in zip(batch.taken, ids, strict=True) if created is None]

        # Cut first: this may be the second run of a transaction that was rolled back.
        rejects.truncate(current.rejected_bytes)
        rejects.seek(current.rejected_bytes)
        rejects.write(batch.rejected_text(duplicates))
        rejects.flush()
        os.fsync(rejects.fileno())

        current.records_done += batch.size
        current.customers_created += len(ids) - len(duplicates)
        current.records_rejected += len(batch.rejected) + len(duplicates)
        current.rejected_bytes = rejects.tell()
        current.updated_at = timezone.now()
        current.save()
        return current

    return run_in_transaction(work)


def _finished(run: ImportRun, actor: str) -> None:
    def work() -> None:
        run.finished_at = run.updated_at = timezone.now()
        run.save(update_fields=["finished_at", "updated_at"])
        _audit(run, actor, "import.finished")

    run_in_transaction(work)


def _audit(run: ImportRun, actor: str, action: str) -> None:
    detail = {
        "file": run.file_name,
        "sha256": run.content_sha256,
        "records": run.records_done,
        "created": run.customers_created,
        "rejected": run.records_rejected,
    }
    audit_record(actor=actor, action=action, target=f"import:{run.pk}", detail=detail)


def _locked(path: Path) -> BinaryIO:
    """The file of rejected records, held by this process alone."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        file.close()
        raise ImportBusy(ImportBusy.__doc__) from exc
    return file


def _cut(rejects: BinaryIO, run: ImportRun) -> None:
    length = rejects.seek(0, os.SEEK_END)
    if length < run.rejected_bytes:
        # It was moved away meanwhile: what is rejected from here on begins a new one.
        run.rejected_bytes = length
        run.save(update_fields=["rejected_bytes"])


def _duplicates(batch: _Batch, seen: set[str]) -> list[Record]:
    emails = [values["email"].lower() for _, values in batch.taken if values.get("email")]
    known = Customer.objects.active().alias(email_key=Lower("email")).filter(email_key__in=emails)
    seen.update(email.lower() for email in known.values_list("email", flat=True) if email)
    duplicates = []
    for record, values in batch.taken:
        if email := (values.get("email") or "").lower():
            if email in seen:
                duplicates.append(record)
            seen.add(email)
    return duplicates


def _rejected_line(record: Record, errors: list[FieldError]) -> bytes:
    document = {
        "line": record.line,
        "reason": " ".join(dict.fromkeys(error.detail for error in errors)),
        "errors": [{"pointer": error.pointer, "code": error.code, "detail": error.detail} for error in errors],
        "record": record.content,
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
