"""A process with a session forks: parent and child each control a job of their own."""

import os
import sys

import wheelhouse_client

with wheelhouse_client.job("acme", "fork-parent", interrupt=True) as parent:
    parent.checkpoint()
    session = wheelhouse_client.process.session().id
    child = os.fork()
    if child == 0:
        if wheelhouse_client.current() is not None:
            os._exit(4)
        with wheelhouse_client.job("acme", "fork-child") as job:
            job.checkpoint()
        same = wheelhouse_client.process.session().id == session
        wheelhouse_client.close()
        os._exit(3 if same else 0)
    _, status = os.waitpid(child, 0)
    parent.checkpoint()
    parent.save("still attached")
sys.exit(os.waitstatus_to_exitcode(status))
