"""Publishes two tasks, and prints how to control them."""

from tasks import letters, report

for task in (report.delay(120), letters.delay(600)):
    for action in ("pause", "resume", "cancel"):
        print(f"  wheelhouse job {action} {task.id} --wait")
