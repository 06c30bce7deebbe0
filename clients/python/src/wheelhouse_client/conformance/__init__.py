"""Checks a client program, in any language, against the worker protocol: ``python -m wheelhouse_client.conformance -- COMMAND``.

COMMAND is started once for each check. It is to do one small job and to end (docs/worker-protocol.md has the rules):

1. Connect to WHEELHOUSE_URL with WHEELHOUSE_TOKEN, and attach to the job WHEELHOUSE_JOB of the tenant WHEELHOUSE_TENANT.
2. Begin at the resume point, a whole number (0 where there is none). For each step from there to below WHEELHOUSE_STEPS:
   a checkpoint; append the step's number and a line feed to the file WHEELHOUSE_FILE; wait 20 ms; save step + 1.
3. End as completed, say goodbye (close 1000), and exit with 0. After a cancel, a refusal (``ended``) or a loss: exit with
   any code, and write nothing more.
"""
