"""The checks: each is one start of the program, and the rules of docs/worker-protocol.md that it shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .server import Violation
from .trial import STEPS, Trial

REATTACH = 1.5


@dataclass(frozen=True)
class Check:
    """``rule`` says what is checked, as it stands on the page."""

    rule: str
    run: Callable[[Trial], Awaitable[None]]


CHECKS: list[Check] = []


def check(rule: str) -> Callable[[Callable[[Trial], Awaitable[None]]], Callable[[Trial], Awaitable[None]]]:
    def add(function: Callable[[Trial], Awaitable[None]]) -> Callable[[Trial], Awaitable[None]]:
        CHECKS.append(Check(rule, function))
        return function

    return add


@check("hello comes first, attach before the work, saves grow, end is waited for, goodbye is 1000")
async def plain(t: Trial) -> None:
    link = await t.link()
    message = await link.next("attach")
    await t.still("before it was attached", 0.3)
    t.ref = message["ref"]
    await link.send("attached", ref=t.ref, run=1, status="running", resume_point=None)
    await t.end(link)
    saves = [message["point"] for message in link.seen if message["type"] == "save"]
    if saves[-1:] != [STEPS]:
        raise Violation(f"the last save is {saves[-1:]}, not {STEPS}")


@check("The work begins at the resume point")
async def resume_point(t: Trial) -> None:
    link = await t.link()
    await t.attach(link, point=STEPS - 5, run=3)
    await link.next("end", ref=t.ref, how="completed")
    await link.send("ended", ref=t.ref, status="completed")
    await t.exits(0)
    if t.lines() != list(range(STEPS - 5, STEPS)):
        raise Violation(f"the lines are {t.lines()}")


@check("pause: still is said when nothing runs on; resume needs no answer")
async def pause(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await t.order(link, 1, "pause")
    await link.next("reached", ref=t.ref, order=1, state="still")
    await t.still("after reached: still")
    await t.order(link, 2, "resume")
    await t.ticks()
    await t.order(link, 3, "pause")
    await link.next("reached", ref=t.ref, order=3, state="still")
    await t.order(link, 4, "resume")
    await t.end(link)


@check("An order that comes again is confirmed again")
async def pause_again(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    for _ in range(2):
        await t.order(link, 7, "pause")
        await link.next("reached", ref=t.ref, order=7, state="still")
    await t.order(link, 8, "resume")
    await t.end(link)


@check("attached with paused: the work does not begin before resume")
async def paused_at_attach(t: Trial) -> None:
    link = await t.link()
    await t.attach(link, status="paused")
    await t.still("although it was attached as paused")
    if t.lines():
        raise Violation("the work began although it was attached as paused")
    await t.order(link, 1, "resume")
    await t.end(link)


@check("cancel: ended is said when nothing is left, and nothing is done after it")
async def cancel(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await t.order(link, 1, "cancel")
    await link.next("reached", ref=t.ref, order=1, state="ended")
    before = t.lines()
    await link.send("ended", ref=t.ref, status="cancelled")
    await t.exits()
    if t.lines() != before:
        raise Violation("the work went on after reached: ended")
    if any(message["type"] == "end" for message in link.seen):
        raise Violation("end was sent beside reached: ended")


@check("cancel outranks a pause")
async def cancel_while_paused(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await t.order(link, 1, "pause")
    await link.next("reached", ref=t.ref, order=1, state="still")
    before = t.lines()
    await t.order(link, 2, "cancel")
    await link.next("reached", ref=t.ref, order=2, state="ended")
    await link.send("ended", ref=t.ref, status="cancelled")
    await t.exits()
    if t.lines() != before:
        raise Violation("the work went on between the pause and the cancel")


@check("time_out ends the work like a cancel")
async def time_out(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await t.order(link, 1, "time_out")
    await link.next("reached", ref=t.ref, order=1, state="ended")
    await link.send("ended", ref=t.ref, status="failed")
    await t.exits()


@check("refused: ended is never run")
async def refused_ended(t: Trial) -> None:
    link = await t.link()
    message = await link.next("attach")
    await link.send("refused", ref=message["ref"], error="ended", status="cancelled", message="It has been cancelled")
    await t.exits()
    if t.lines():
        raise Violation("the work ran although it was refused")
    if any(message["type"] == "end" for message in link.seen):
        raise Violation("end was sent for a job that was refused")


@check("A broken connection: the same session attaches with its ref and run, and each step is done once")
async def reattach(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await link.drop()
    link = await t.link()
    await t.attach_again(link)
    await t.end(link)


@check("A connection lost in a pause: the work stays still, and the pause is confirmed again")
async def reattach_paused(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await t.order(link, 1, "pause")
    await link.next("reached", ref=t.ref, order=1, state="still")
    await link.drop()
    link = await t.link()
    await t.attach_again(link, status="paused")
    await t.order(link, 1, "pause")
    await link.next("reached", ref=t.ref, order=1, state="still")
    await t.still("in a pause, after a reconnection")
    await t.order(link, 2, "resume")
    await t.end(link)


@check("1012: the client reconnects at once")
async def worker_leaves(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    left = time.monotonic()
    await link.close(1012, "the worker leaves")
    link = await t.link()
    if time.monotonic() - left > REATTACH:
        raise Violation("it took longer than reattach_seconds")
    await t.attach_again(link)
    await t.end(link)


@check("Out of touch: the work is held after two thirds of reattach_seconds, until it is attached again")
async def out_of_touch(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    t.server.open = False
    await link.drop()
    await asyncio.sleep(REATTACH)
    await t.still("after reattach_seconds without contact")
    t.server.open = True
    link = await t.link()
    await t.attach_again(link)
    await t.end(link)


@check("A server that is silent, not even pings or pongs: the work is held, and a new connection is made")
async def silence(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    link.silent = True
    link.socket.transport.pause_reading()
    await asyncio.sleep(REATTACH)
    await t.still("although nothing was heard for reattach_seconds")
    again = await t.link()
    await t.attach_again(again)
    await t.end(again)
    link.socket.transport.abort()


@check("end is sent again on a new connection until ended comes")
async def end_again(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await link.next("end", timeout=30, ref=t.ref, how="completed")
    await link.drop()
    link = await t.link()
    await t.attach_again(link)
    await t.end(link)


@check("An end that is recorded although nobody heard of that: `refused: ended` is its answer, whatever the status")
async def end_is_recorded(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await link.next("end", timeout=30, ref=t.ref, how="completed")
    await link.drop()
    link = await t.link()
    await link.next("attach", ref=t.ref, run=1)
    done = t.lines()
    await link.send("refused", ref=t.ref, error="ended", status="pending", message="The end of this run is recorded")
    await t.exits()
    if t.lines() != done:
        raise Violation("the work was done again although its end was recorded")


@check("An attach that was not answered is sent again on a new connection, and nothing begins before")
async def attach_again_unanswered(t: Trial) -> None:
    link = await t.link()
    await link.next("attach")
    await link.drop()
    await t.still("although its attach was not answered", 0.3)
    link = await t.link()
    await t.attach(link)
    await t.end(link)


@check("A save that was not answered is sent again on a new connection")
async def save_again(t: Trial) -> None:
    link = await t.link()
    link.answers_saves = False
    await t.attach(link)
    first = await link.next("save", ref=t.ref)
    await link.drop()
    link = await t.link()
    await t.attach_again(link)
    again = await link.next("save", ref=t.ref)
    if again["n"] < first["n"]:
        raise Violation(f"save.n went back from {first['n']} to {again['n']}")
    await t.end(link)


@check("elsewhere at first: attached later under a new ref")
async def elsewhere(t: Trial) -> None:
    link = await t.link()
    message = await link.next("attach")
    t.server.refs.add(message["ref"])
    await link.send("refused", ref=message["ref"], error="elsewhere", message="Another has it", retry_after=1)
    await t.still("although it was refused", 0.3)
    await t.attach(link)
    await t.end(link)


@check("lost: the work ends, and nothing more is said of it")
async def lost(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await link.send("lost", ref=t.ref, message="Another run has the job")
    await asyncio.sleep(0.3)
    seen = len(link.seen)
    await t.still("after it was lost", 0.7)
    await t.exits()
    if [message for message in link.seen[seen:] if message.get("ref") == t.ref]:
        raise Violation("it said more of a run that it has lost")


@check("Refused as ended on coming back: the work ends")
async def refused_on_return(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await link.drop()
    link = await t.link()
    await link.next("attach", ref=t.ref, run=1)
    await link.send("refused", ref=t.ref, error="ended", status="cancelled", message="It has been cancelled")
    await asyncio.sleep(0.3)
    await t.still("although the job had ended", 0.7)
    await t.exits()


@check("4403: the work ends, and nothing of it is confirmed")
async def revoked(t: Trial) -> None:
    link = await t.link()
    await t.attach(link)
    await t.ticks()
    await link.close(4403, "the token was revoked")
    await asyncio.sleep(0.3)
    await t.still("although the token was revoked", 0.7)
    await t.exits()
