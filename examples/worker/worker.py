"""The stock Python worker for one session: serves the work item in the environment variables, then exits.

It reads ANTHROPIC_WORK_ID, ANTHROPIC_ENVIRONMENT_ID, ANTHROPIC_SESSION_ID, ANTHROPIC_WORK_SECRET (or
ANTHROPIC_ENVIRONMENT_KEY) and ANTHROPIC_BASE_URL, as the SDK does. Optional:
- WORKSPACE: the working directory; default: the current one
- BERTH_WORKER_MAX_IDLE_MS: how long it keeps an idle session; default: 60000
"""

import signal

# Importing the SDK takes a second or two. The first process of a container only gets signals that it has a handler for,
# so a SIGTERM in that time would be lost. These handlers record it.
early_signals: list[int] = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda received, _frame: early_signals.append(received))

import gc  # noqa: E402

# Importing the SDK creates objects that are never freed. Garbage collection would take a fifth of the time.
gc.disable()

import logging  # noqa: E402
import os  # noqa: E402

import anyio  # noqa: E402
from anthropic import AsyncAnthropic  # noqa: E402
from anthropic.lib.environments import DEFAULT_MAX_IDLE  # noqa: E402
from anyio.abc import TaskStatus  # noqa: E402

gc.freeze()
gc.enable()


def max_idle_seconds() -> float:
    text = os.environ.get("BERTH_WORKER_MAX_IDLE_MS", "")
    if text == "":
        return DEFAULT_MAX_IDLE
    if not (text.isascii() and text.isdigit()):
        raise SystemExit("BERTH_WORKER_MAX_IDLE_MS must be a whole number, 0 or more")
    return int(text) / 1000


async def cancel_on_signal(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """When it is cancelled, the worker finishes a running tool call, sends its stop and returns."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        if early_signals:
            scope.cancel()
        async for _ in signals:
            scope.cancel()


async def main() -> None:
    # The client requires a credential; the worker replaces it with the item's in every call.
    async with AsyncAnthropic(api_key=None, auth_token="unused") as client:
        worker = client.beta.environments.work.worker(
            workdir=os.environ.get("WORKSPACE") or None,
            max_idle=max_idle_seconds(),
        )
        # The item has a separate scope, because its end by a signal is not an error.
        async with anyio.create_task_group() as signals:
            with anyio.CancelScope() as item:
                await signals.start(cancel_on_signal, item)
                await worker.handle_item()
            signals.cancel_scope.cancel()


if __name__ == "__main__":
    # The SDK logs the lease and its end to stderr.
    logging.basicConfig(level=os.environ.get("ANTHROPIC_LOG", "warning").upper())
    anyio.run(main)
