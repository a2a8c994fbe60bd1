"""What each process says of its connection pools."""

from __future__ import annotations

from django.db import models


class ProcessReport(models.Model):
    """The latest figures of one process's pools. Older than a minute: that process is gone."""

    process = models.CharField(max_length=200, primary_key=True, help_text="Host, process id and time of its start.")
    role = models.CharField(max_length=100, blank=True)
    reported_at = models.DateTimeField()
    pools = models.JSONField(default=list)

    class Meta:
        verbose_name = "process"
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return self.process
