import { describe, expect, test } from "vitest";
import { type ConditionReason, REASONS } from "../../src/api/condition-reasons.ts";
import { END_REASON_LIST, END_REASONS } from "../../src/api/reasons.ts";
import { explanationOf } from "../../src/explain/explanation.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { PREPARED } from "../pods/pods.ts";
import {
  asleepPod,
  at,
  awakePod,
  claim,
  environment,
  event,
  item,
  pod,
  running,
  terminated,
  traces,
  waitingPod,
} from "./sample-traces.ts";

const NOT_READY = { status: "False", reason: "KeyRejected", message: "the key was rejected" } as const;

describe("the explanation", () => {
  test.each(END_REASON_LIST)("for a Pod marked %s has its description and its fix", (reason) => {
    const marked = pod(terminated(1, 2), "ended", {
      "berth.dev/end-reason": reason,
      "berth.dev/end-message": "it said so",
      "berth.dev/ended-at": at(3),
    });
    expect(explanationOf(traces({ pods: [marked] }))).toEqual({
      standing: "ended",
      reason,
      sentence: `It ended as ${reason}: ${END_REASONS[reason].description} It said so.`,
      fix: END_REASONS[reason].fix,
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
    expect(verdict).toMatchObject({ standing: "running", reason: null, fix: "Nothing to do." });
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
      standing: "stopping",
      reason: "KeyRejected",
      sentence: expect.stringContaining("Pod berth-research-x, which is deleted"),
    });
    const ended = explanationOf(traces({ pods: [pod(terminated(1, 2, 1, "Error"))], claims: [claim()] }));
    expect(ended).toMatchObject({ standing: "stopping", reason: null });
    expect(ended.sentence).toMatch(
      /^Its container has ended \(Failed: .*exit code 1\), and its work item is not settled/,
    );
  });

  test("for a queued item names the failing condition of its Environment", () => {
    const hindered = item({}, environment([NOT_READY]));
    expect(explanationOf(traces({ items: [hindered] }))).toMatchObject({
      standing: "waiting",
      reason: "KeyRejected",
      sentence: expect.stringContaining("is not Ready: KeyRejected: the key was rejected"),
    });
    expect(explanationOf(traces({ items: [item({}, environment([{}]))] }))).toMatchObject({
      standing: "waiting",
      reason: null,
      fix: expect.stringContaining("kubectl -n agents describe benv research"),
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
    expect(elsewhere.sentence).toContain("another client of this queue");
    expect(elsewhere.fix).toMatch(/no other operator/);
    const workers = explanationOf(traces({ items: [item(active, environment([], "workers"))] }));
    expect(workers).toMatchObject({ standing: "running", fix: "Nothing to do." });
  });

  test("for a stopped item without other traces has its time", () => {
    const verdict = explanationOf(traces({ items: [item({ state: "stopped", stopped_at: at(9) })] }));
    expect(verdict).toMatchObject({ standing: "ended", reason: null, sentence: expect.stringContaining(at(9)) });
  });

  test("for a Pod that no node takes says why, and what to do", () => {
    const message = "0/3 nodes are available: 3 Insufficient memory.";
    const condition = { type: "PodScheduled", status: "False", reason: "Unschedulable", message };
    const unscheduled = (phase: "warm" | "running") => {
      const made = pod({ phase: "Pending", conditions: [condition] }, phase);
      const { nodeName: _nodeName, ...spec } = made.spec;
      return { ...made, spec };
    };
    expect(explanationOf(traces({ pods: [unscheduled("warm")] }))).toEqual({
      standing: "preparing",
      reason: "Unschedulable",
      sentence: `Pod berth-research-x serves no session, and is not ready for one: Unschedulable: ${message}`,
      fix: REASONS.Unschedulable.fix,
    });
    expect(explanationOf(traces({ pods: [unscheduled("running")], claims: [claim()] }))).toMatchObject({
      standing: "starting",
      reason: "Unschedulable",
      sentence: `Pod berth-research-x was opened; its container does not run: Unschedulable: ${message}`,
      fix: REASONS.Unschedulable.fix,
    });
  });

  test.each<[string, ConditionReason]>([
    ["ImagePullBackOff", "ImagePullFailing"],
    ["CreateContainerError", "PreparationFailing"],
  ])("for a Pod whose container waits in %s says so, and what to do", (waiting, reason) => {
    const state = { waiting: { reason: waiting, message: "no such thing" } };
    const stuck = pod({ phase: "Pending", containerStatuses: [{ name: "worker", state }] }, "warm");
    expect(explanationOf(traces({ pods: [stuck] }))).toMatchObject({
      standing: "preparing",
      reason,
      sentence: `Pod berth-research-x serves no session, and is not ready for one: ${waiting}: no such thing.`,
      fix: REASONS[reason].fix,
    });
  });

  test("for a Pod that its node does not start has the newest warning of the node", () => {
    const stuck = pod({ phase: "Pending" }, "warm");
    const warning = (reason: string, seconds: number) => ({
      ...event(reason, seconds, "no such volume"),
      type: "Warning",
    });
    const events = [warning("FailedMount", 5), warning("FailedAttachVolume", 3), event("Pulling", 9, "an image")];
    expect(explanationOf(traces({ pods: [stuck], events }))).toMatchObject({
      standing: "preparing",
      reason: "PreparationFailing",
      sentence: "Pod berth-research-x serves no session, and is not ready for one: FailedMount: no such volume.",
    });
    expect(explanationOf(traces({ pods: [stuck] }))).toMatchObject({ reason: null, fix: "Nothing to do." });
  });

  test("for a Pod that waits in a shell says so, until it is assigned to its session", () => {
    const waiting = waitingPod({});
    expect(explanationOf(traces({ pods: [waiting] }))).toMatchObject({
      standing: "warm",
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

  test("for a claimed Pod with parking Program says what waits: a shell, once its session has slept", () => {
    const program = { "berth.dev/parking": "Program" };
    const sentenceOf = (of: Pod, turn: number) => {
      const prepared = { ...of, status: { ...of.status, conditions: PREPARED } };
      return explanationOf(traces({ pods: [prepared], claims: [{ ...claim({ opened: false }), turn }] })).sentence;
    };
    expect(sentenceOf(waitingPod(program), 0)).toMatch(/its container still waits in its program for a session\.$/);
    expect(sentenceOf(asleepPod(program), 2)).toMatch(/its container still waits in a shell for a session\.$/);
  });

  test("for a sleeping session says until when, how its last work item ended, and what its next message finds", () => {
    const before = event("Completed", 9, "session session_1: it ended (work item work_1)");
    const asleep = explanationOf(traces({ pods: [asleepPod()], events: [before] }));
    expect(asleep).toMatchObject({ standing: "sleeping", reason: "Completed", fix: "Nothing to do." });
    expect(asleep.sentence).toMatch(
      `It sleeps in Pod berth-research-x on node node-1, since ${at(10)} and until ${at(610)}. Its last work item ended as Completed: `,
    );
    expect(asleep.sentence).toMatch(/Its next message finds the same Pod and the same files\.$/);
    expect(explanationOf(traces({ pods: [asleepPod()] }))).toMatchObject({ standing: "sleeping", reason: null });
    const queued = explanationOf(traces({ pods: [asleepPod()], items: [item({}, environment([{}]))] }));
    expect(queued).toMatchObject({
      standing: "waiting",
      sentence: expect.stringMatching(/which is Ready\. It sleeps in Pod berth-research-x, which serves it next\.$/),
    });
  });

  test("for a session that was woken names its turn, which is the claim's", () => {
    const woken = { ...claim({ workId: "work_2" }), turn: 2 };
    expect(explanationOf(traces({ pods: [awakePod()], claims: [woken] }))).toMatchObject({
      standing: "running",
      sentence: `It runs in Pod berth-research-x on node node-1, since ${at(20)}, as turn 2.`,
    });
    const settling = explanationOf(traces({ pods: [asleepPod()], claims: [claim()] }));
    expect(settling).toMatchObject({ standing: "stopping" });
  });

  test.each([
    [{ type: "Pod" }, "Its next message finds a new Pod, without the files of the last one."],
    [
      { type: "PerSession", retainSeconds: 60 },
      "Its next message finds a new Pod and the files of its volume, which is kept for 60 s after its last use.",
    ],
    [
      { type: "Ephemeral" },
      "Its Pod was kept until 2026-01-02T03:14:15Z: no work item came within workspace.sleepSeconds.",
    ],
  ] as const)("for a session whose sleep has ended says why and what is kept, with %o", (workspace, last) => {
    const of = environment();
    const spec = { ...of.spec, sessions: { ...of.spec.sessions, workspace } } as typeof of.spec;
    const events = [
      event("Completed", 9, "session session_1: it ended (work item work_1)"),
      event(
        "SleepEnded",
        610,
        "session session_1 sleeps no longer, and its Pod is deleted: no work item came within workspace.sleepSeconds",
      ),
    ];
    const { standing, reason, sentence } = explanationOf(traces({ events, environments: [{ ...of, spec }] }));
    expect([standing, reason]).toEqual(["ended", "Completed"]);
    expect(sentence).toContain(" Its Pod was kept until 2026-01-02T03:14:15Z: no work item came");
    expect(sentence.endsWith(last)).toBe(true);
  });

  test("for a sleeping Pod that is being deleted doesn't promise its files", () => {
    const { metadata, ...rest } = asleepPod();
    const going = { ...rest, metadata: { ...metadata, deletionTimestamp: at(610) } };
    expect(explanationOf(traces({ pods: [going] }))).toMatchObject({
      standing: "ended",
      sentence: "It slept in Pod berth-research-x, which is being deleted.",
    });
  });

  test("for a Pod that waits for a key says that it is not a fault", () => {
    const state = { waiting: { reason: "CreateContainerConfigError", message: 'secret "berth-research-x" not found' } };
    const conditions = ["Initialized", "PodReadyToStartContainers"].map((type) => ({ type, status: "True" }));
    const parked = pod({ phase: "Pending", conditions, containerStatuses: [{ name: "worker", state }] }, "warm");
    expect(explanationOf(traces({ pods: [parked] }))).toMatchObject({
      standing: "warm",
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
    expect(sentence).toContain("Searched: Pods of namespace agents. Not searched: Events of namespace agents.");
    expect(sentence).toMatch(/kept for retainEndedSeconds.*another namespace or cluster/);
  });
});
