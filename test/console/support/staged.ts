/** Sample sessions, an Environment and a running console for tests of the console. */

import { conditionFor } from "../../../src/api/conditions.ts";
import { END_REASON_LIST, END_REASONS } from "../../../src/api/reasons.ts";
import { Console, type ConsoleOptions } from "../../../src/console/console.ts";
import { type Clock, realClock } from "../../../src/core/clock.ts";
import { silentLogger } from "../../../src/observe/logger.ts";
import type { SessionView } from "../../../src/protocol/session-view.ts";
import type { EnvironmentLook, EnvironmentSource } from "../../../src/reconcile/environment-runtime.ts";

/** A session of a running claim. */
export function session(name: string, over: Partial<SessionView> = {}): SessionView {
  const queuedAtMs = over.queuedAtMs ?? Date.UTC(2030, 0, 1);
  return {
    workId: `work_${name}`,
    sessionId: `sesn_${name}`,
    pod: `research-${name}`,
    lease: "Worker",
    phase: "running",
    queuedAtMs,
    claimedAtMs: queuedAtMs + 40,
    openedAtMs: queuedAtMs + 90,
    startedAtMs: queuedAtMs + 200,
    beatAtMs: queuedAtMs + 600,
    stoppedAtMs: null,
    reason: null,
    message: "",
    failed: false,
    ...over,
  };
}

/** The same session after its end. */
export function ended(name: string, over: Partial<SessionView> = {}): SessionView {
  const running = session(name, over);
  const stoppedAtMs = over.stoppedAtMs ?? (running.queuedAtMs ?? 0) + 5_000;
  return { ...running, phase: "ended", reason: "Completed", ...over, stoppedAtMs };
}

/** The same session while it sleeps, as its Pod shows it. */
export function asleep(name: string, over: Partial<SessionView> = {}): SessionView {
  const stoppedAtMs = over.stoppedAtMs ?? Date.UTC(2030, 0, 1) + 5_000;
  const unknown = { queuedAtMs: null, claimedAtMs: null, openedAtMs: null, startedAtMs: null, beatAtMs: null };
  const sleepsUntilMs = stoppedAtMs + 1_800_000;
  return { ...session(name), ...unknown, phase: "sleeping", stoppedAtMs, sleepsUntilMs, ...over };
}

/** An Environment whose sessions the test sets. */
export class StagedSource implements EnvironmentSource {
  now: EnvironmentLook = {
    mode: "Sessions",
    max: 50,
    report: {
      queue: { depth: 3, pending: 1 },
      sessions: { warm: 2, preparing: 0, running: 0, stopping: 0, sleeping: 0, ended: 0 },
      blocked: null,
    },
    conditions: [conditionFor("Ready", "Berth serves work", 1)],
  };
  live: SessionView[] = [];
  /** How often its sessions were read. */
  asked = 0;

  look(): EnvironmentLook {
    return this.now;
  }

  sessions(): SessionView[] {
    this.asked += 1;
    return this.live;
  }
}

/** A console on a free port, for an operator that the test plays. */
export async function startConsole(
  options: Partial<ConsoleOptions> = {},
  served: () => readonly number[] = () => [0],
): Promise<Console & { url: string }> {
  const clock: Clock = options.clock ?? realClock;
  const made = new Console({
    bindAddress: "127.0.0.1:0",
    logger: silentLogger,
    identity: "operator_1234abcd",
    version: "0.1.0",
    docsUrl: "https://git.example.com/berth/blob/v0.1.0",
    shards: 1,
    ...options,
    clock,
  });
  const address = await made.start(served);
  return Object.assign(made, { url: `http://${address}` });
}

/** The key of an Environment with long names. */
export const LONG_KEY = `${"namespace".repeat(7)}/${"environment-".repeat(8)}x`;

/** Makes an Environment not ready for this reason. */
export function breakWith(source: StagedSource, reason: "KeyRejected" | "Unreachable", message: string): void {
  const condition = conditionFor(reason, message, 1);
  source.now = { ...source.now, conditions: [{ ...condition, type: "Ready" }, condition] };
}

/** As many sessions as in a large cluster, all of the last minutes: live, asleep, and with each end reason. */
export function manySessions(count: number, nowMs: number): SessionView[] {
  return Array.from({ length: count }, (_, index) => {
    const name = String(index).padStart(5, "0");
    const queuedAtMs = nowMs - 240_000 + ((index * 7_919) % 230_000);
    if (index % 8 === 1) return { ...ended(name, { queuedAtMs }), phase: "sleeping", sleepsUntilMs: nowMs + 1_800_000 };
    if (index % 4 !== 0) return session(name, { queuedAtMs });
    const reason = END_REASON_LIST[(index / 4) % END_REASON_LIST.length] ?? "Completed";
    const stoppedAtMs = queuedAtMs + 1_000 + ((index * 31) % 9_000);
    return ended(name, {
      queuedAtMs,
      stoppedAtMs,
      reason,
      failed: END_REASONS[reason].failed,
      message: `it was ${reason}`,
    });
  });
}
