import { describe, expect, test } from "vitest";
import { END_REASON_LIST, END_REASONS } from "../../src/api/reasons.ts";
import { explanationOf } from "../../src/explain/explanation.ts";
import { at, claim, environment, event, item, pod, running, terminated, traces, waitingPod } from "./sample-traces.ts";

const NOT_READY = { status: "False", reason: "KeyRejected", message: "the key was rejected" } as const;

describe("the explanation", () => {
  test.each(END_REASON_LIST)("for a Pod marked %s has its description and its fix", (reason) => {
    const marked = pod(terminated(1, 2), "finished", {
      "berth.dev/end-reason": reason,
      "berth.dev/end-message": "it said so",
      "berth.dev/finished-at": at(3),
    });
    expect(explanationOf(traces({ pods: [marked] }))).toEqual({
      standing: "ended",
      reason,
      sentence: `It ended as ${reason}: ${END_REASONS[reason].description} It said so.`,
      mend: END_REASONS[reason].mend,
    });
  });

  test("for a deleted Pod comes from its last Event", () => {
    const told = [
      event("SessionStarted", 5, "session session_1 runs (work item work_1)"),
      event("OOMKilled", 9, "session session_1: out of memory (work item work_1)"),
    ];
    expect(explanationOf(traces({ events: told }))).toMatchObject({ standing: "ended", reason: "OOMKilled" });
  });

  test("for a running session names Pod and node", () => {
    const verdict = explanationOf(traces({ pods: [pod(running(4))], claims: [claim()] }));
    expect(verdict).toMatchObject({ standing: "running", reason: null, mend: "Nothing to do." });
    expect(verdict.sentence).toBe(`It runs in Pod berth-research-x on node node-1, since ${at(4)}.`);
  });

  test("for a session that runs again ignores how it ended before", () => {
    const before = event("Failed", 2, "session session_1: it failed (work item work_0)");
    expect(explanationOf(traces({ events: [before], pods: [pod(running(4))], claims: [claim()] })).standing).toBe(
      "running",
    );
  });

  test("for a container that does not start has the kubelet's reason", () => {
    const state = { waiting: { reason: "CreateContainerError", message: "no such user" } };
    const stuck = pod({ phase: "Pending", containerStatuses: [{ name: "worker", state }] });
    const verdict = explanationOf(traces({ pods: [stuck], claims: [claim()] }));
    expect(verdict.standing).toBe("starting");
    expect(verdict.sentence).toContain("was opened; its container does not run: CreateContainerError: no such user");
  });

  test("for a claim that can't be settled names the blocking condition", () => {
    const concerned = environment([NOT_READY]);
    expect(explanationOf(traces({ claims: [claim()], environments: [concerned] }))).toMatchObject({
      standing: "ending",
      reason: "KeyRejected",
      sentence: expect.stringContaining("Pod berth-research-x, which is gone"),
    });
    const ended = explanationOf(traces({ pods: [pod(terminated(1, 2, 1, "Error"))], claims: [claim()] }));
    expect(ended).toMatchObject({ standing: "ending", reason: null });
    expect(ended.sentence).toMatch(
      /^Its container is over \(Failed: .*exit code 1\), and its work item is not settled/,
    );
  });

  test("for a queued item names the failing condition of its Environment", () => {
    const hindered = item({}, environment([NOT_READY]));
    expect(explanationOf(traces({ items: [hindered] }))).toMatchObject({
      standing: "waiting",
      reason: "KeyRejected",
      sentence: expect.stringContaining("does not serve: KeyRejected: the key was rejected"),
    });
    expect(explanationOf(traces({ items: [item({}, environment([{}]))] }))).toMatchObject({
      standing: "waiting",
      reason: null,
      mend: expect.stringContaining("kubectl -n agents describe benv research"),
    });
  });

  test("for a requeued item says that it waits, whatever ended before", () => {
    const before = event(
      "NodeLost",
      2,
      "session session_1: the node is lost; the work item is in the queue again (work item work_1)",
    );
    expect(explanationOf(traces({ events: [before], items: [item()] })).standing).toBe("waiting");
  });

  test("for an item that another client serves says so, which is normal in workers mode", () => {
    const active = { state: "active", acknowledged_at: at(2), started_at: at(3) } as const;
    const elsewhere = explanationOf(traces({ items: [item(active)] }));
    expect(elsewhere.sentence).toContain("somebody else who polls this queue");
    expect(elsewhere.mend).toMatch(/no other operator/);
    const workers = explanationOf(traces({ items: [item(active, environment([], "workers"))] }));
    expect(workers).toMatchObject({ standing: "running", mend: "Nothing to do." });
  });

  test("for a stopped item without other traces has its time", () => {
    const verdict = explanationOf(traces({ items: [item({ state: "stopped", stopped_at: at(9) })] }));
    expect(verdict).toMatchObject({ standing: "ended", reason: null, sentence: expect.stringContaining(at(9)) });
  });

  test("for a Pod that waits in a shell says so, until it is assigned to its session", () => {
    const waiting = waitingPod({});
    expect(explanationOf(traces({ pods: [waiting] }))).toMatchObject({
      standing: "parked",
      sentence: "Pod berth-research-x serves no session: it waits in a shell for a session.",
    });
    expect(explanationOf(traces({ pods: [waiting], claims: [claim({ opened: false })] }))).toMatchObject({
      standing: "starting",
      sentence:
        "Pod berth-research-x was claimed, and not opened yet; its container still waits in a shell for a session.",
    });
    const assigned = waitingPod({ "berth.dev/assigned-at": at(4) });
    expect(explanationOf(traces({ pods: [assigned], claims: [claim()] }))).toMatchObject({
      standing: "running",
      sentence: `It runs in Pod berth-research-x on node node-1, since ${at(4)}.`,
    });
  });

  test("for a Pod that waits for a key says that it is not a fault", () => {
    const state = { waiting: { reason: "CreateContainerConfigError", message: 'secret "berth-research-x" not found' } };
    const conditions = ["Initialized", "PodReadyToStartContainers"].map((type) => ({ type, status: "True" }));
    const parked = pod({ phase: "Pending", conditions, containerStatuses: [{ name: "worker", state }] }, "parked");
    expect(explanationOf(traces({ pods: [parked] }))).toMatchObject({
      standing: "parked",
      sentence:
        "Pod berth-research-x serves no session: it waits for a key (CreateContainerConfigError), which is not a fault.",
    });
  });

  test("for an unknown id says what was searched, what was not, and possible reasons", () => {
    const looked = [
      { where: "Pods of namespace agents", found: 0, note: null },
      { where: "Events of namespace agents", found: null, note: "needs list events" },
    ];
    const { standing, sentence } = explanationOf(traces({ looked }));
    expect(standing).toBe("unknown");
    expect(sentence).toContain("Looked in: Pods of namespace agents. Not looked in: Events of namespace agents.");
    expect(sentence).toMatch(/kept for retainFinishedSeconds.*another namespace or cluster/);
  });
});
