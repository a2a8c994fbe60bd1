"""How far the import of one file has come."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class ImportRun(models.Model):
    """The checkpoint of one file, moved in the transaction of each batch, so that no line is ever imported twice.

    A file is known by its content, not by its name: a copy or a renamed file goes on where the first one stopped.
    """

    content_sha256 = models.CharField(max_length=64)
    format = models.CharField(max_length=10)
    file_name = models.CharField(max_length=255)
    records_done = models.PositiveBigIntegerField(
        default=0, help_text="records of the file that were taken or rejected"
    )
    customers_created = models.PositiveBigIntegerField(default=0)
    records_rejected = models.PositiveBigIntegerField(default=0)
    rejected_bytes = models.PositiveBigIntegerField(
        default=0, help_text="length of the file of rejected lines at this checkpoint"
    )
    started_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # One checkpoint for each content; closes the race of two imports of the same file that start together.
            models.UniqueConstraint(fields=["content_sha256", "format"], name="customers_importrun_content_uniq"),
        ]
        verbose_name = "imported file"

    def __str__(self) -> str:
        return f"{self.file_name} ({self.content_sha256[:12]})"
