"""Procrastinate: a job queue; one worker, ten jobs at a time."""

import asyncio
import json
import logging
import time

import procrastinate
from project import URL, counts, events, settle, take

logging.disable(logging.CRITICAL)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL))


@app.task(name="customers")
async def into_nothing(**payload):
    take(payload)


async def main():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        jobs = [payload for _, _, payload in events()]
        for start in range(0, len(jobs), 5_000):
            await into_nothing.batch_defer_async(*jobs[start : start + 5_000])
        settle()
        started = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=10, install_signal_handlers=False, listen_notify=False)
        print(json.dumps({**counts, "seconds": time.perf_counter() - started}))


asyncio.run(main())
