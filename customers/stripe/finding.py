"""What became of a create whose outcome is not known: found among a Stripe account's customers, however many there are.

Three ways, in the order of their cost, for none is enough alone: the list by e-mail reads its own writes, but the
e-mail may have been changed there; search knows our id, but lags behind; the list of everything that was created in
the time of the sends sees all of it, but is long in an account that is being filled.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from customers.integrations import Found, RemoteMissing, RemoteRecord
from customers.stripe import mapping
from customers.stripe.client import errors_translated

PAGE: Final = 100
# Pages that are read in any case, before the word of search is taken for what it must have seen.
CERTAIN_PAGES: Final = 100
_SKEW: Final = timedelta(minutes=1)
# Search lags behind by a minute, and by an hour in outages; beyond this it has seen everything.
SEARCH_LAG: Final = timedelta(hours=2)


class CreatedSearch:
    """The steps of one look-up; each is one call, and begins when it is asked for.

    Args:
        api: the ``customers`` of a ``StripeClient``.
        reference: our id, as the create wrote it into the metadata.
        email: as it was sent; may be empty.
        sent: first and last send, by our clock.
    """

    def __init__(self, api: Any, *, reference: str, email: str, sent: tuple[datetime, datetime]) -> None:
        self._api = api
        self._reference = reference
        self._email = email
        self._sent = sent

    def steps(self, resume: str) -> Iterator[Found]:
        """All steps.

        Args:
            resume: how far an earlier look-up came in the long list: everything that was created after this second
                it has seen, and none of it was ours.
        """
        known: set[str] = set()
        ours = False
        asked_at = timezone.now()
        if self._email:
            for page in self._listed({"email": self._email}):
                known |= {record.remote_id for record, _ in page}
                ours = ours or any(record.reference == self._reference for record, _ in page)
                yield Found(records=tuple(record for record, _ in page), resume=resume)
        for remote_id in self._searched():
            if remote_id not in known:
                # Search may show what has changed or gone since.
                record = self._retrieved(remote_id)
                ours = ours or (record is not None and record.reference == self._reference)
                yield Found(records=(record,) if record else (), resume=resume)
        yield Found(resume=resume)
        if not ours:
            yield from self._created(resume, seen_by_search=(asked_at - SEARCH_LAG).timestamp())

    def _created(self, resume: str, *, seen_by_search: float) -> Iterator[Found]:
        first, last = self._sent[0] - _SKEW, self._sent[1] + _SKEW
        window = {"gte": int(first.timestamp()), "lte": int(resume or last.timestamp())}
        ours = False
        for count, page in enumerate(self._listed({"created": window}), start=1):
            records = tuple(record for record, _ in page if record.reference == self._reference)
            oldest = min((created for _, created in page), default=0)
            # From the first record of ours on, an interrupted look-up begins here again, or that record would be
            # forgotten.
            ours = ours or bool(records)
            resume = resume if ours else str(oldest)
            yield Found(records=records, resume=resume)
            if count >= CERTAIN_PAGES and oldest < seen_by_search:
                return

    def _listed(self, params: dict[str, Any]) -> Iterator[list[tuple[RemoteRecord, int]]]:
        """Pages of a list, newest first, with the second in which each was created."""
        params = {**params, "limit": PAGE}
        more = True
        while more:
            with errors_translated():
                listed = self._api.list(params)
            page = [customer.to_dict() for customer in listed.data]
            yield [(mapping.record_of(customer), int(customer["created"])) for customer in page]
            more = listed.has_more and bool(page)
            if more:
                params["starting_after"] = page[-1]["id"]

    def _searched(self) -> list[str]:
        query = f"metadata['{mapping.REFERENCE}']:'{self._reference}'"
        with errors_translated():
            return [customer.id for customer in self._api.search({"query": query, "limit": PAGE}).data]

    def _retrieved(self, remote_id: str) -> RemoteRecord | None:
        try:
            with errors_translated():
                record = mapping.record_of(self._api.retrieve(remote_id).to_dict())
        except RemoteMissing:
            return None
        return None if record.deleted else record
