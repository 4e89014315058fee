import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { timelineOf } from "../../src/explain/timeline.ts";
import {
  asleepPod,
  at,
  awakePod,
  claim,
  environment,
  event,
  item,
  pod,
  terminated,
  traces,
  turnsPod,
  waitingPod,
} from "./sample-traces.ts";

const whats = (...all: Parameters<typeof traces>) => timelineOf(traces(...all)).map(({ what }) => what);

describe("the timeline", () => {
  test("contains a session's whole life in order, from all sources", () => {
    const finished = pod(
      { ...terminated(4, 9), conditions: [{ type: "PodScheduled", status: "True", lastTransitionTime: at(0) }] },
      "ended",
      { "berth.dev/end-reason": "Completed", "berth.dev/ended-at": at(11) },
    );
    const served = item({
      state: "stopped",
      acknowledged_at: at(3),
      started_at: at(5),
      latest_heartbeat_at: at(8),
      stop_requested_at: at(9),
      stopped_at: at(10),
    });
    expect(
      whats({
        pods: [finished],
        claims: [claim()],
        items: [served],
        events: [
          event("Completed", 11, "session session_1: it ended (work item work_1)"),
          event("SessionStarted", 5, "session session_1 runs (work item work_1)"),
        ],
      }),
    ).toEqual([
      ...["pod-created", "pod-scheduled", "queued", "polled", "acknowledged", "container-started", "first-beat"],
      ...["event", "last-beat", "stop-requested", "container-ended", "stopped", "end-event", "ended"],
    ]);
  });

  test("shows for a Pod that waited in a shell when it was parked, assigned and delivered", () => {
    const told = timelineOf(
      traces({
        pods: [waitingPod({ "berth.dev/assigned-at": at(4) })],
        claims: [claim()],
        events: [event("SessionStarted", 4, "session session_1 runs (work item work_1)")],
      }),
    );
    expect(told.map(({ what, message }) => [what, message])).toEqual([
      ["pod-created", "Pod berth-research-x was created"],
      ["warm", "the container started and waits in a shell"],
      ["queued", expect.any(String)],
      ["polled", expect.any(String)],
      ["acknowledged", expect.any(String)],
      ["assigned", "Pod berth-research-x was assigned to the session"],
      ["delivered", "SessionStarted: session session_1 runs (work item work_1)"],
    ]);
  });

  test("tells each work item of a Pod as a turn, with the sleep between", () => {
    const told = timelineOf(
      traces({
        pods: [awakePod()],
        claims: [
          { ...claim({ workId: "work_2", queuedAt: at(19), polledFromMs: NaN, acknowledgedAt: null }), turn: 2 },
        ],
        events: [
          event("SessionStarted", 5, "session session_1 runs (work item work_1)"),
          event("Completed", 9, "session session_1: it ended (work item work_1)"),
          event("SessionAsleep", 10, `session session_1 sleeps, and its files are kept until ${at(610)}`),
          event("SessionStarted", 20, "session session_1 runs (work item work_2)"),
        ],
      }),
    );
    expect(told.map(({ what, message }) => `${what}: ${message}`)).toEqual([
      "pod-created: Pod berth-research-x was created",
      "warm: turn 1 started and waits in a shell",
      "delivered: SessionStarted: session session_1 runs (work item work_1), as turn 1",
      "container-ended: turn 1 ended with exit code 0 (Completed)",
      "end-event: Completed: session session_1: it ended (work item work_1)",
      `sleeping: SessionAsleep: session session_1 sleeps, and its files are kept until ${at(610)}`,
      "next-turn: turn 2 started and waits in a shell for the next work item",
      "queued: work item work_2 was queued",
      "assigned: Pod berth-research-x was assigned to the session, for turn 2",
      "delivered: SessionStarted: session session_1 runs (work item work_2), as turn 2",
    ]);
  });

  test("tells that the first program waits itself with parking Program, and that all others wait in a shell", () => {
    const told = timelineOf(traces({ pods: [awakePod({ "berth.dev/parking": "Program" })] }));
    expect(told.map(({ message }) => message)).toEqual(
      expect.arrayContaining([
        "turn 1 started, and its program waits",
        "turn 2 started and waits in a shell for the next work item",
      ]),
    );
  });

  test("tells from its Pod that a session sleeps, when the Events are gone", () => {
    const lines = ({ pods, events = [] }: Pick<Parameters<typeof traces>[0] & object, "pods" | "events">) =>
      timelineOf(traces({ pods: pods ?? [], events })).map(({ what, message }) => `${what}: ${message}`);
    const assigned = "assigned: Pod berth-research-x was assigned to the session, for turn 1";
    const asleep = `sleeping: the session sleeps in Pod berth-research-x until ${at(610)}`;
    expect(lines({ pods: [asleepPod()] })).toEqual(expect.arrayContaining([assigned, asleep]));
    const told = event("SessionAsleep", 10, `session session_1 sleeps until ${at(610)}`);
    expect(lines({ pods: [asleepPod()], events: [told] })).not.toContain(asleep);
  });

  test("tells why a sleep ended, and the end of a turn that served no work item", () => {
    const killed = turnsPod(
      "sleeping",
      [
        [1, 9],
        [11, 15],
      ],
      { "berth.dev/ended-turn": "1" },
    );
    const ended = event("SleepEnded", 14, "session session_1 sleeps no longer, and its Pod is deleted: no item came");
    const told = timelineOf(traces({ pods: [killed], events: [ended] }));
    expect(told.slice(-2).map(({ what, message }) => `${what}: ${message}`)).toEqual([
      "sleep-ended: SleepEnded: session session_1 sleeps no longer, and its Pod is deleted: no item came",
      "container-ended: turn 2 ended while it waited, with exit code 0 (Completed)",
    ]);
  });

  test("takes from a claim what the Work API was not asked for, and lists each moment once", () => {
    const ofClaim = timelineOf(traces({ claims: [claim()] }));
    expect(ofClaim.map(({ what, source }) => [what, source])).toEqual([
      ["queued", "claim"],
      ["polled", "claim"],
      ["acknowledged", "claim"],
    ]);
    const both = timelineOf(traces({ claims: [claim()], items: [item({ acknowledged_at: at(3) })] }));
    expect(both.map(({ what, source }) => [what, source])).toEqual([
      ["queued", "work-api"],
      ["polled", "claim"],
      ["acknowledged", "work-api"],
    ]);
  });

  test("sorts entries of the same second by the order of a session's life", () => {
    const started = pod(terminated(3, 3));
    const served = item({ state: "active", acknowledged_at: at(3.4), started_at: at(3.9) });
    expect(whats({ pods: [started], items: [served] })).toEqual([
      ...["pod-created", "queued", "acknowledged", "container-started", "first-beat", "container-ended"],
    ]);
  });

  test("keeps exact times of one second in order, whatever the order of a session's life", () => {
    const [first, second] = [
      item({ state: "stopped", acknowledged_at: at(3.1), started_at: at(3.2), stopped_at: at(3.3) }),
      item({ state: "active", created_at: at(3.4), acknowledged_at: at(3.5), started_at: at(3.6) }),
    ];
    const told = timelineOf(traces({ items: [second, first] }));
    expect(told.map((entry) => entry.at)).toEqual(told.map((entry) => entry.at).sort());
    expect(told.map(({ what }) => what)).toEqual([
      ...["queued", "acknowledged", "first-beat", "stopped", "queued", "acknowledged", "first-beat"],
    ]);
  });

  test("omits the Normal Events of the scheduler and the kubelet, but not their Warnings", () => {
    const of = (reason: string, type: string, reportingComponent: string) => ({
      ...event(reason, 5, "words"),
      type,
      reportingComponent,
    });
    const events = [
      of("Pulled", "Normal", "kubelet"),
      of("Scheduled", "Normal", "default-scheduler"),
      of("FailedMount", "Warning", "kubelet"),
      of("SessionStarted", "Normal", "berth"),
    ];
    expect(timelineOf(traces({ events })).map(({ message }) => message)).toEqual([
      "FailedMount: words",
      "SessionStarted: words",
    ]);
  });

  test("lists an Event of a Pod and of its Environment once", () => {
    const words = "session session_1: the container ended with exit code 1 (work item work_1)";
    const told = timelineOf(
      traces({
        events: [
          event("Failed", 5, words),
          event("Failed", 5, words, "Environment"),
          event("QuotaExceeded", 6, "no room", "Environment"),
        ],
      }),
    );
    expect(told.map(({ message }) => message)).toEqual([
      `Failed: ${words}`,
      "QuotaExceeded: Environment research: no room",
    ]);
  });

  test("shows the condition Ready and the failing ones", () => {
    const of = environment([
      { type: "Ready", status: "False", reason: "QuotaExceeded", message: "no room" },
      { type: "Authenticated", status: "True", reason: "KeyAccepted" },
      { type: "SessionsStarting", status: "Unknown", reason: "NoSessionYet" },
      { type: "CapacityAvailable", status: "False", reason: "QuotaExceeded", message: "no room" },
    ]);
    expect(timelineOf(traces({ environments: [of] })).map(({ message }) => message)).toEqual([
      "Environment research since then: Ready=False QuotaExceeded: no room",
      "Environment research since then: CapacityAvailable=False QuotaExceeded: no room",
    ]);
  });

  test("masks likely credentials in messages from elsewhere", () => {
    const [told] = timelineOf(traces({ events: [event("Failed", 1, "it printed sk-ant-oat01-abcdefgh")] }));
    expect(told?.message).toBe("Failed: it printed sk-ant-[redacted]");
  });

  test("is sorted for any times", () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 20, noNaN: true }), { minLength: 5, maxLength: 5 }), (times) => {
        const [a = 0, b = 0, c = 0, d = 0, e = 0] = times;
        const entries = timelineOf(
          traces({
            pods: [pod(terminated(Math.floor(a), Math.floor(b)))],
            items: [item({ acknowledged_at: at(c), started_at: at(d), stopped_at: at(e) })],
          }),
        );
        const seconds = entries.map((entry) => Math.floor(Date.parse(entry.at) / 1_000));
        expect(seconds).toEqual([...seconds].sort((x, y) => x - y));
        const exact = entries.map((entry) => Date.parse(entry.at)).filter((ms) => ms % 1_000 !== 0);
        expect(exact).toEqual(exact.toSorted((x, y) => x - y));
      }),
    );
  });
});
