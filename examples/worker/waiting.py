"""The stock Python worker for one session, loaded before there is a session (`parking: Program`, docs/program-parking.md).

It waits for its work item on standard input, serves it, then exits. ANTHROPIC_WORK_ID, ANTHROPIC_SESSION_ID and
ANTHROPIC_WORK_SECRET (or ANTHROPIC_ENVIRONMENT_KEY) come with the item. ANTHROPIC_ENVIRONMENT_ID, ANTHROPIC_BASE_URL,
WORKSPACE and BERTH_WORKER_MAX_IDLE_MS are environment variables, as in worker.py.
"""

import os
import signal

EXIT_NO_ITEM = 75
EXIT_SIGTERM = 143

# The first process of a container only gets signals that it has a handler for. While this one waits, there is nothing to
# finish. Later, SIGTERM is recorded until the worker can drain.
waiting = True
told_to_end = False


def on_sigterm(_number: int, _frame: object) -> None:
    global told_to_end
    if waiting:
        os._exit(EXIT_SIGTERM)
    told_to_end = True


signal.signal(signal.SIGTERM, on_sigterm)

import gc  # noqa: E402

# Importing the SDK creates objects that are never freed. Garbage collection would take a fifth of the time.
gc.disable()

import json  # noqa: E402
import logging  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402

import anyio  # noqa: E402
from anthropic import AsyncAnthropic  # noqa: E402
from anthropic.lib.environments import DEFAULT_MAX_IDLE  # noqa: E402
from anthropic.lib.tools.agent_toolset import beta_agent_toolset_20260401  # noqa: E402
from anyio.abc import TaskStatus  # noqa: E402


def item_in(line: bytes) -> dict[str, str] | None:
    """The variables in a line `berth1 <length> <JSON> #end`, or None for any other or incomplete line."""
    match = re.fullmatch(rb"berth1 (\d{1,4}) (\{.*\}) #end\n", line)
    if match is None or len(match[2]) != int(match[1]):
        return None
    try:
        variables = json.loads(match[2])
    except ValueError:
        return None
    return variables if variables.get("ANTHROPIC_WORK_ID") else None


def read_item() -> dict[str, str]:
    """Reads standard input up to the first line that is an item."""
    global waiting
    for line in sys.stdin.buffer:
        item = item_in(line)
        if item is None:
            continue
        waiting = False
        # Tells Berth that the item has arrived.
        print("berth1 started", flush=True)
        # A repeated line must not reach this program's tools, which may inherit its standard input.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        return item
    raise SystemExit(EXIT_NO_ITEM)


async def cancel_on_sigterm(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """When it is cancelled, the worker finishes a running tool call, sends its stop and returns."""
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        if told_to_end:
            scope.cancel()
        async for _ in signals:
            scope.cancel()


async def main() -> None:
    idle = os.environ.get("BERTH_WORKER_MAX_IDLE_MS")
    # The client requires a credential; the worker replaces it with the item's in every call.
    async with AsyncAnthropic(api_key=None, auth_token="unused") as client:
        worker = client.beta.environments.work.worker(
            workdir=os.environ.get("WORKSPACE") or None,
            # These are the default tools. Naming them loads them now instead of with the item.
            tools=beta_agent_toolset_20260401,
            max_idle=int(idle) / 1000 if idle else DEFAULT_MAX_IDLE,
        )
        gc.freeze()
        gc.enable()
        # This blocks the event loop, which has nothing else to do yet.
        item = read_item()
        async with anyio.create_task_group() as signals:
            with anyio.CancelScope() as session:
                await signals.start(cancel_on_sigterm, session)
                await worker.handle_item(
                    work_id=item["ANTHROPIC_WORK_ID"],
                    session_id=item.get("ANTHROPIC_SESSION_ID"),
                    work_secret=item.get("ANTHROPIC_WORK_SECRET"),
                    environment_key=item.get("ANTHROPIC_ENVIRONMENT_KEY"),
                )
            signals.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=os.environ.get("ANTHROPIC_LOG", "warning").upper())
    anyio.run(main)
