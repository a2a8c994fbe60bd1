from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

import pytest

from operations.audit import audit_record
from operations.troubles import sources
from operations.troubles.sources import Trouble, TroubleGroup, TroubleSource

SINCE = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


class Leaks(TroubleSource):
    """Troubles in memory: numbers, of two kinds."""

    name = "leaks"
    title = "Leaks"
    view_permission = "outbox.view_delivery"
    retry_permission = "outbox.retry_delivery"

    def __init__(self) -> None:
        self.open = {str(n): "drip" if n % 2 else "burst" for n in range(1, 8)}

    def counts(self) -> Mapping[str, int]:
        return {"open": len(self.open)}

    def groups(self, *, fingerprint: str | None = None) -> Sequence[TroubleGroup]:
        found = []
        for kind in ("drip", "burst"):
            ids = [key for key, one in self.open.items() if one == kind]
            if ids and fingerprint in (None, kind):
                found.append(
                    TroubleGroup(
                        fingerprint=kind,
                        title=f"a {kind}",
                        count=len(ids),
                        first_seen=SINCE,
                        last_seen=SINCE + dt.timedelta(hours=len(kind)),
                        code=kind,
                        message=f"There is a <{kind}>.",
                        sample_id=ids[-1],
                        hours=[0] * 22 + [1, 3],
                    )
                )
        return found

    def troubles(
        self, *, fingerprint: str | None = None, ids: Sequence[str] | None = None, after: str = "", limit: int = 50
    ) -> Sequence[Trouble]:
        keys = sorted(self.open, key=int, reverse=True)
        return [
            Trouble(
                id=key,
                group=self.open[key],
                state="open",
                about=f"pipe {key}",
                code=self.open[key],
                message="wet",
                since=SINCE,
            )
            for key in keys
            if fingerprint in (None, self.open[key])
            and (ids is None or key in ids)
            and (not after or int(key) < int(after))
        ][:limit]

    def retry(self, *, ids: Sequence[str], actor: str, reason: str) -> Sequence[str]:
        found = [key for key in ids if key in self.open]
        for key in found:
            del self.open[key]
        audit_record(actor=actor, action="leak.mended", detail={"ids": found, "reason": reason})
        return found


@pytest.fixture
def leaks(db: None) -> Iterator[Leaks]:
    source = Leaks()
    sources.register(source)
    yield source
    sources.unregister(source.name)
