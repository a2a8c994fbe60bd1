"""PgQueuer: a job queue; one worker on asyncpg with large batches."""

import asyncio
import json
import time

import asyncpg
from pgqueuer import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode
from project import URL, counts, events, settle, take


async def main():
    driver = AsyncpgDriver(await asyncpg.connect(URL))
    queries = Queries(driver)
    await queries.install()
    jobs = [json.dumps(payload).encode() for _, _, payload in events()]
    for start in range(0, len(jobs), 5_000):
        some = jobs[start : start + 5_000]
        await queries.enqueue(["customers"] * len(some), some, [0] * len(some))
    settle()
    manager = QueueManager(queries)

    @manager.entrypoint("customers")
    async def into_nothing(job):
        take(json.loads(job.payload))

    started = time.perf_counter()
    await manager.run(mode=QueueExecutionMode.drain, batch_size=500)
    print(json.dumps({**counts, "seconds": time.perf_counter() - started}))


asyncio.run(main())
