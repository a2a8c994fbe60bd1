"""The entries of beat in the database: made from the table in ``zenskar.beat`` when missing, and kept as edited.

Each entry remembers, in its description, what the program set it up with. An entry that is still so is nobody's choice
and follows the table of a newer version; one that differs was edited by an operator and stays, whatever the table says,
until it is reset.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks
from django_celery_beat.schedulers import DatabaseScheduler

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.errors import ProblemError
from zenskar.beat import BEAT_SCHEDULE

_MARK: Final = "Set up by the program:"
SHORTEST: Final = 1
LONGEST: Final = 31 * 86_400


class UnknownEntry(ProblemError):
    """There is no such entry."""

    status = 404
    code = "not_found"
    title = "Not found"


class TableScheduler(DatabaseScheduler):  # type: ignore[misc]
    """Celery's scheduler in the database, which leaves alone what an operator edited."""

    def update_from_dict(self, mapping: dict[str, Any]) -> None:
        """Make the entries of the table that are missing; ``mapping`` is that table, or Celery's own entries."""
        if mapping is self.app.conf.beat_schedule or mapping == BEAT_SCHEDULE:
            entries_install()
            self.schedule.update(
                {
                    task.name: self.Entry(task, app=self.app)
                    for task in PeriodicTask.objects.filter(name__in=list(BEAT_SCHEDULE), enabled=True)
                }
            )
        else:
            super().update_from_dict(mapping)


def entries_install() -> int:
    """Make missing entries, bring those that nobody edited up to date, remove those of earlier versions; how many."""

    def work() -> int:
        changed = sum(_install(name) for name in BEAT_SCHEDULE)
        gone = PeriodicTask.objects.filter(description__startswith=_MARK).exclude(name__in=list(BEAT_SCHEDULE))
        changed += int(gone.count())
        gone.delete()
        if changed:
            PeriodicTasks.update_changed()
        return changed

    return run_in_transaction(work)


def entry_set(name: str, *, every: int, actor: str) -> PeriodicTask:
    """Have a task sent every so many seconds; that stays across starts and versions.

    Args:
        name: of the entry.
        every: seconds, from 1 to 31 days.
        actor: who, for the audit trail.

    Raises:
        UnknownEntry: there is none of this name.
        ValueError: it is no such number.
    """
    if not SHORTEST <= every <= LONGEST:
        raise ValueError(f"From {SHORTEST} to {LONGEST:,} seconds.")

    def work() -> PeriodicTask:
        task = PeriodicTask.objects.select_for_update().filter(name=name).first()
        if task is None:
            raise UnknownEntry(f"There is no entry {name!r}. There are: {', '.join(sorted(BEAT_SCHEDULE))}.")
        before = entry_text(task)
        _put(task, every, every)
        task.save()
        audit_record(
            actor=actor,
            action="periodictask.changed",
            target=f"periodictask:{name}",
            detail={"before": before, "every": every},
        )
        return task

    return run_in_transaction(work)


def entries_reset(names: Collection[str], *, actor: str) -> list[str]:
    """Put entries back to what the table says, switched on; all of them without names. Those that differed.

    Raises:
        UnknownEntry: the table has none of such a name.
    """
    if unknown := sorted(set(names) - set(BEAT_SCHEDULE)):
        raise UnknownEntry(f"There is no entry {unknown[0]!r}. There are: {', '.join(sorted(BEAT_SCHEDULE))}.")

    def work() -> list[str]:
        reset: list[str] = []
        for name in sorted(names or BEAT_SCHEDULE):
            task = PeriodicTask.objects.select_for_update().filter(name=name).first()
            if task is not None and not entry_is_edited(task) and task.enabled:
                continue
            before = entry_text(task) if task else ""
            _set_up(task or PeriodicTask(name=name)).save()
            reset.append(name)
            audit_record(
                actor=actor, action="periodictask.reset", target=f"periodictask:{name}", detail={"before": before}
            )
        PeriodicTasks.update_changed()
        return reset

    return run_in_transaction(work)


def entry_is_edited(task: PeriodicTask) -> bool:
    """Whether somebody changed when it is sent; being paused is another matter."""
    return bool(task.description != f"{_MARK} {entry_text(task)}.")


def entry_text(task: PeriodicTask) -> str:
    """When an entry is sent, in words."""
    expires = f", void after {task.expire_seconds} s" if task.expire_seconds else ""
    return f"{task.scheduler}{expires}"


def _install(name: str) -> int:
    task = PeriodicTask.objects.select_for_update().filter(name=name).first()
    if task is None:
        _set_up(PeriodicTask(name=name)).save()
        return 1
    if entry_is_edited(task) and task.description.startswith(_MARK):
        if task.task != BEAT_SCHEDULE[name]["task"]:
            # Which function it is, is no operator's choice.
            PeriodicTask.objects.filter(pk=task.pk).update(task=BEAT_SCHEDULE[name]["task"])
            return 1
        return 0
    before = (entry_text(task), task.task, task.description)
    enabled = task.enabled
    _set_up(task)
    task.enabled = enabled
    if (entry_text(task), task.task, task.description) == before:
        return 0
    task.save()
    return 1


def _set_up(task: PeriodicTask) -> PeriodicTask:
    entry = BEAT_SCHEDULE[task.name]
    task.task, task.enabled = entry["task"], True
    task.crontab = task.solar = task.clocked = None
    _put(task, round(entry["schedule"]), entry["options"]["expire_seconds"])
    task.description = f"{_MARK} {entry_text(task)}."
    return task


def _put(task: PeriodicTask, every: int, expires: int) -> None:
    interval = IntervalSchedule.objects.filter(every=every, period=IntervalSchedule.SECONDS).order_by("pk").first()
    task.interval = interval or IntervalSchedule.objects.create(every=every, period=IntervalSchedule.SECONDS)
    task.crontab = task.solar = task.clocked = None
    task.expire_seconds = expires
