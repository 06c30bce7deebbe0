"""Publishes two tasks, and prints how to control them."""

from tasks import letters, report

for task in (report.delay(600), letters.delay(3000)):
    for action in ("pause", "resume", "cancel"):
        print(f"  wheelhouse job {action} {task.id} --wait")
