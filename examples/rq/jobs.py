"""RQ functions under control. They know nothing of Wheelhouse, but for the progress that ``letters`` shows."""

import time

import wheelhouse_client


def report(pages: int) -> int:
    """A pause holds it even inside the sleep."""
    for page in range(pages):
        print(f"page {page + 1} of {pages}", flush=True)
        time.sleep(1)
    return pages


def letters(count: int) -> int:
    """Shows its progress; called as a plain function it has no job, and runs as it is."""
    job = wheelhouse_client.current()
    for number in range(count):
        print(f"letter {number + 1} of {count}", flush=True)
        time.sleep(0.2)
        if job is not None:
            job.progress(done=number + 1, total=count)
    return count
