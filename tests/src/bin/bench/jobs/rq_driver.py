"""Enqueues empty jobs and times them: reads how many from its input, a line each, and answers the seconds until all ended."""

import sys
import time

from redis import Redis
from rq import Queue

import rq_nothing

redis = Redis.from_url(sys.argv[1])
queue = Queue('bench', connection=redis)

for line in sys.stdin:
    count = int(line)
    begun = time.monotonic()
    for _ in range(count):
        queue.enqueue(rq_nothing.nothing)
    finished = queue.finished_job_registry
    while finished.get_job_count(cleanup=False) < count:
        time.sleep(0.02)
    print(time.monotonic() - begun, flush=True)
    for job in finished.get_job_ids(cleanup=False):
        finished.remove(job, delete_job=True)
    queue.empty()
