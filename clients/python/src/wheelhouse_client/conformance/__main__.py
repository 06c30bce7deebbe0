"""``python -m wheelhouse_client.conformance [--only TEXT] -- COMMAND ARGS…``; exits with 1 where a rule is broken."""

from __future__ import annotations

import argparse
import asyncio
import sys

from . import __doc__ as description
from .checks import CHECKS, REATTACH, Check
from .server import ProtocolServer, Violation
from .trial import Trial


async def run_check(check: Check, command: list[str]) -> tuple[list[str], str]:
    """The broken rules of one check, and the end of the program's standard error."""
    faults: list[str] = []
    async with ProtocolServer(REATTACH) as server:
        trial = Trial(server, command)
        await trial.start()
        try:
            await asyncio.wait_for(check.run(trial), 90)
        except Violation as violation:
            faults.append(str(violation))
        except asyncio.TimeoutError:
            faults.append("the check took longer than 90 s")
        except Exception as error:  # The client left where the check went on talking to it.
            faults.append(f"the check broke off: {type(error).__name__}: {error}")
        faults.extend(dict.fromkeys(server.faults))
        stderr = await trial.stop()
    return faults, stderr


async def run_all(checks: list[Check], command: list[str], parallel: int) -> bool:
    """Prints a line for each check, in their order; returns whether all rules were kept."""
    broken = 0
    turn = asyncio.Semaphore(parallel)

    async def in_turn(check: Check) -> tuple[list[str], str]:
        async with turn:
            return await run_check(check, command)

    running = [asyncio.ensure_future(in_turn(check)) for check in checks]
    for check, result in zip(checks, running):
        faults, stderr = await result
        print(f"{'ok      ' if not faults else 'BROKEN  '}{check.rule}", flush=True)
        for fault in faults:
            print(f"          {fault}")
        if faults:
            broken += 1
            for line in stderr.strip().splitlines()[-5:]:
                print(f"          | {line}")
    print(f"\n{len(checks) - broken} of {len(checks)} rules kept" + (f", {broken} broken" if broken else ""))
    return broken == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m wheelhouse_client.conformance",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", help="only the checks whose rule has this text")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="so many checks at a time")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="the program and its arguments, after --")
    arguments = parser.parse_args()
    checks = [check for check in CHECKS if arguments.only.lower() in check.rule.lower()]
    if not checks:
        parser.error(f"no rule has the text {arguments.only!r}")
    return 0 if asyncio.run(run_all(checks, arguments.command, max(1, arguments.parallel))) else 1


if __name__ == "__main__":
    sys.exit(main())
