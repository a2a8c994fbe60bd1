"""Documents that are dear to make and asked for often, kept in Redis for a moment.

For figures alone: what a decision rests on is read from the database. An answer is at most ``seconds`` old, whatever
happens, since Redis drops it itself; and never from before a ``forget`` that was over when it was asked for. For that
each forgetting begins a new generation, and a value is kept only if the generation is still the one in which its making
began: a slow reader cannot put an old value back (after "Scaling Memcache at Facebook", leases). Without Redis, or when
it does not answer in time, each caller makes the document anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
import redis

from operations.redis_connection import patient_redis

# A forgotten generation must outlive every reader that began before it.
_GENERATION_SECONDS: Final = 3600

# Keeps the value only in the generation that its maker saw; absent ones are the empty string on both sides.
KEEP_LUA: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
"""


class MomentaryCache:
    """One document.

    Args:
        name: of the document; unique.
        seconds: how old an answer may be, asked anew for each; 0 keeps nothing.
    """

    def __init__(self, name: str, *, seconds: Callable[[], float]) -> None:
        self._generation = f"zenskar:cache:{name}:generation"
        self._value = f"zenskar:cache:{name}:value"
        self._seconds = seconds

    def get(self, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The document: the kept one, or a new one."""
        milliseconds = int(self._seconds() * 1000)
        if milliseconds <= 0:
            return make()
        found = patient_redis().attempt(lambda client: client.mget(self._generation, self._value), otherwise=None)
        if found is None:
            return make()
        generation, kept = found
        if kept is not None:
            document: dict[str, Any] = orjson.loads(kept)
            return document
        made = make()
        text, seen = orjson.dumps(made), generation or b""
        patient_redis().attempt(
            lambda client: client.eval(KEEP_LUA, 2, self._generation, self._value, seen, text, milliseconds),
            otherwise=None,
        )
        return made

    def forget(self) -> None:
        """Make the next answer a new one; call it after the commit of what changed it."""
        if self._seconds() <= 0:
            return

        def begin(client: redis.Redis) -> None:
            with client.pipeline() as together:
                together.incr(self._generation)
                together.expire(self._generation, _GENERATION_SECONDS)
                together.delete(self._value)
                together.execute()

        patient_redis().attempt(begin, otherwise=None)
