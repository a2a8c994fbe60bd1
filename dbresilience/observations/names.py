"""What is counted, and in which spans."""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.db import models

SPAN: Final = dt.timedelta(minutes=10)


class TallyName(models.TextChoices):
    """What a tally counts; its key says of which kind."""

    ERROR = "error", "errors, by SQLSTATE or class"
    RETRY_RECOVERED = "retry_recovered", "transactions that a retry brought through, by SQLSTATE"
    RETRY_GIVEN_UP = "retry_given_up", "transactions that ran out of retries, by SQLSTATE"
    COMMIT_RESOLVED = "commit_resolved", "commits whose answer was lost, by what became of them"
    STATEMENT = "statement", "statements, with their time"
    SLOW_STATEMENT = "slow_statement", "statements slower than the threshold, by normalised text"
    UNRECORDED = "unrecorded", "observations dropped because too many different ones waited to be written"
