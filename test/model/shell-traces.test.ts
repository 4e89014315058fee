import { describe, expect, test } from "vitest";
import type { Rules } from "../../model/rules.ts";
import type { PointDetails, PointEvent, PointOutcome } from "../../src/core/points.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { NO_HEARTBEAT } from "../../src/work/types.ts";
import { checkSession } from "../faults/traces/check-session.ts";
import { project } from "../faults/traces/projection.ts";
import type { Entry } from "../faults/traces/trace.ts";

// The checker of traces on made-up traces of `parking: Shell`.

const ENVIRONMENT = "agents/research";
const WORK_ID = "work_1";
const STEP_MS = 10;

/** One act of a made-up operator. The entries of a pair of requests are sent together. */
type Act = (trace: Trace) => void;

class Trace {
  readonly entries: Entry[] = [];
  #operator = 1;
  #call = 0;
  #nowMs = 1_000_000;

  wait(ms: number): void {
    this.#nowMs += ms;
  }

  put(event: Pick<PointEvent, "point" | "phase"> & Partial<PointEvent>): void {
    this.wait(STEP_MS);
    const at = { atMs: this.#nowMs, monotonicMs: this.#nowMs };
    const from = { environment: ENVIRONMENT, operator: `process ${this.#operator}`, call: this.#call };
    this.entries.push({
      is: "point",
      event: { details: {}, asks: {}, workId: WORK_ID, pod: "pod", ...from, ...at, ...event },
    });
  }

  nextCall(): number {
    this.#call += 1;
    return this.#call;
  }

  restart(): void {
    this.entries.push({ is: "ended", environment: ENVIRONMENT }, { is: "began", environment: ENVIRONMENT });
    this.#operator += 1;
  }
}

interface Answered {
  readonly outcome?: PointOutcome;
  readonly asks?: PointDetails;
  readonly details?: PointDetails;
}

const request =
  (point: string, { outcome = "ok", asks = {}, details = {} }: Answered = {}): Act =>
  (trace) => {
    const call = trace.nextCall();
    trace.put({ point, phase: "before", call, asks });
    trace.put({ point, phase: "after", call, asks, outcome, details });
  };

const note =
  (point: string, details: PointDetails): Act =>
  (trace) =>
    trace.put({ point, phase: "note", call: trace.nextCall(), details });

/** Sends two requests together; the second is answered first. */
const together =
  (one: string, other: string): Act =>
  (trace) => {
    const [first, second] = [trace.nextCall(), trace.nextCall()];
    trace.put({ point: one, phase: "before", call: first });
    trace.put({ point: other, phase: "before", call: second });
    trace.put({ point: other, phase: "after", call: second, outcome: "ok" });
    trace.put({ point: one, phase: "after", call: first, outcome: "ok" });
  };

const wait =
  (ms: number): Act =>
  (trace) =>
    trace.wait(ms);

const restart: Act = (trace) => trace.restart();

/** The API server shows that the container has ended. */
const ended: Act = ({ entries }) => entries.push({ is: "over", environment: ENVIRONMENT, pod: "pod" });

const poll: Act = (trace) => {
  const call = trace.nextCall();
  trace.put({ point: "claim.poll", phase: "before", call, pod: "" });
  const details = { workId: WORK_ID, state: "queued", type: "session" };
  trace.put({ point: "claim.poll", phase: "after", call, outcome: "ok", details, pod: "" });
};

const CLAIM: readonly Act[] = [
  poll,
  request("claim.journal"),
  request("claim.read-pod", { details: { parked: true } }),
  request("claim.ack"),
];
const OPEN = together("session.open", "session.touch");
const BEATEN = { details: { accepted: true, state: "active", value: "now", ttlSeconds: 90 } } as const;
const TAKE = request("session.take", { asks: { expected: NO_HEARTBEAT }, ...BEATEN });
const FENCE = request("session.fence", { asks: { expected: NO_HEARTBEAT }, ...BEATEN });
const STOP = request("session.stop", { asks: { force: true } });
const DELIVER = request("session.deliver");
const LOST = request("session.deliver", { outcome: "unanswered" });
const look = (state: string) => request("session.look", { details: { state } });
const log = (started: boolean) => request("session.read-log", { details: { started } });
const DELETE = request("session.delete-pod");
const NO_LOG = request("session.read-log", { outcome: "refused" });
const by = (way: string) => note("session.delivered", { by: way });
const SETTLED = [look("stopped"), request("session.settled", { asks: { because: "stopped" } })] as const;
const TAKE_UP = note("recover.take-up", { use: "session", lease: "Worker", opened: true });

function check(acts: readonly Act[], rules: Partial<Rules> = {}): void {
  const trace = new Trace();
  for (const act of acts) act(trace);
  checkSession(project(trace.entries, [WORK_ID]), {
    rules: { parking: "Shell", ...rules },
    timing: DEFAULT_TIMING,
    showsEnds: true,
  });
}

const OPERATOR = { lease: "Operator" } as const;

describe("the checker accepts a trace", () => {
  test.each<[string, readonly Act[], Partial<Rules>?]>([
    ["of a session that starts at the first line", [...CLAIM, OPEN, DELIVER, by("marker"), ...SETTLED]],
    [
      "of a line that is delivered again",
      [...CLAIM, OPEN, LOST, look("starting"), log(false), DELIVER, by("marker"), ...SETTLED],
    ],
    [
      "of a marker that is found in the log",
      [...CLAIM, OPEN, LOST, look("starting"), log(true), by("log"), ...SETTLED],
    ],
    ["of a start that the item shows", [...CLAIM, OPEN, LOST, look("active"), by("item"), ...SETTLED]],
    [
      "of a log that cannot be read",
      [...CLAIM, OPEN, LOST, look("starting"), NO_LOG, DELIVER, by("marker"), ...SETTLED],
    ],
    [
      "of an operator that ends after it opened the claim",
      [...CLAIM, OPEN, restart, TAKE_UP, look("starting"), log(false), DELIVER, by("marker"), ...SETTLED],
    ],
    [
      "of an operator that ends after its line, which arrives late",
      [...CLAIM, OPEN, LOST, restart, TAKE_UP, look("starting"), log(false), LOST, look("active"), by("item")],
    ],
    [
      "of a session that is given up",
      [...CLAIM, OPEN, LOST, DELETE, ended, look("starting"), FENCE, look("active"), STOP, ...SETTLED],
    ],
    [
      "of a line for which the operator holds the lease",
      [...CLAIM, TAKE, OPEN, LOST, look("active"), log(false), DELIVER, by("marker")],
      OPERATOR,
    ],
  ])("%s", (_name, acts, rules) => {
    expect(() => check(acts, rules)).not.toThrow();
  });
});

const MODEL = /the model does not allow this step/;

describe("the checker refuses a trace", () => {
  test.each<[string, readonly Act[], RegExp, Partial<Rules>?]>([
    [
      "of a line before the opening is recorded",
      [...CLAIM, request("session.touch"), DELIVER],
      /before it knew that the opening is recorded/,
    ],
    [
      "of a line after an opening without an answer",
      [...CLAIM, request("session.touch"), request("session.open", { outcome: "unanswered" }), DELIVER],
      /before it knew that the opening is recorded/,
    ],
    ["of a line before the Pod is marked as assigned", [...CLAIM, request("session.open"), DELIVER], MODEL],
    ["of a line without an acknowledgement", [...CLAIM.slice(0, 3), OPEN, DELIVER], MODEL],
    ["of a second line without a look at the item", [...CLAIM, OPEN, LOST, log(false), DELIVER], /having read/],
    ["of a second line without a look at the log", [...CLAIM, OPEN, LOST, look("starting"), DELIVER], MODEL],
    [
      "of a line after a restart without a look",
      [...CLAIM, OPEN, restart, TAKE_UP, log(false), DELIVER],
      /having read/,
    ],
    [
      "of a line for an item that is queued again",
      [...CLAIM, OPEN, LOST, look("queued"), log(false), DELIVER, look("queued"), by("marker")],
      MODEL,
    ],
    [
      "of a line to a Pod that was deleted",
      [...CLAIM, OPEN, LOST, look("starting"), log(false), DELETE, DELIVER],
      MODEL,
    ],
    ["of a start without a line", [...CLAIM, OPEN, look("starting"), log(true)], MODEL],
    ["of a second marker", [...CLAIM, OPEN, DELIVER, by("marker"), look("starting"), log(true), DELIVER], MODEL],
    ["of a stop after a failed delivery", [...CLAIM, OPEN, LOST, look("starting"), FENCE, look("active"), STOP], MODEL],
    [
      "of a stop before the end of a deleted Pod's container",
      [...CLAIM, OPEN, LOST, DELETE, look("starting"), FENCE, look("active"), STOP, ended],
      /whose container may still start/,
    ],
    [
      "of a settlement before the end of a deleted Pod's container",
      [...CLAIM, OPEN, LOST, DELETE, look("queued"), request("session.settled", { asks: { because: "queued" } })],
      /whose container may still start/,
    ],
    ["of a line without a lease", [...CLAIM, OPEN, DELIVER], MODEL, OPERATOR],
    [
      "of a line after its lease",
      [...CLAIM, TAKE, OPEN, LOST, look("active"), log(false), wait(90_000), DELIVER],
      /ms after its lease/,
      OPERATOR,
    ],
    [
      "of a line after a restart without the lease",
      [...CLAIM, TAKE, OPEN, restart, TAKE_UP, look("active"), log(false), DELIVER],
      /after its lease|not allow/,
      OPERATOR,
    ],
  ])("%s", (_name, acts, says, rules) => {
    expect(() => check(acts, rules)).toThrow(says);
  });
});
