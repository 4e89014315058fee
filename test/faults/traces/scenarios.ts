import { PODS } from "../../../src/kube/resource.ts";
import type { FateInput } from "../../../testbed/node/fate.ts";
import type { AttachFault, AttachFaultChooser } from "../../../testbed/node/kubelet-server.ts";
import type { Scenario, TraceRun } from "./run.ts";

/** Leases short enough to lapse in a test, and an operator that is faster by the same factor. */
const SHORT = { simulator: { limits: { ttlSeconds: 8 } }, timeScale: 12 } as const;

/**
 * For leases that the operator adopts after a restart. The holder's interval (12 s, half a TTL) is shorter than the
 * operator's wait (12.5 s), and both plus the heartbeat before them are shorter than a TTL.
 */
const TAKEN_UP = { simulator: { limits: { ttlSeconds: 24, maxTtlSeconds: 24 } }, timeScale: 5 } as const;

const BY_OPERATOR = { lease: "Operator" } as const;

const WORKS: FateInput = { kind: "worker", workMs: { min: 50, max: 800 } };
const PROGRAM: FateInput = { kind: "exit", afterMs: { min: 100, max: 1_500 } };

/** Fates in turn. */
function inTurn(...fates: readonly FateInput[]): { fates: () => FateInput } {
  let started = 0;
  return {
    fates: () => {
      const fate = fates[started % fates.length] ?? WORKS;
      started += 1;
      return fate;
    },
  };
}

/** Pods that wait in a shell. */
const IN_SHELL = { parking: "Shell" } as const;
const SHELL_WORLD = { ...SHORT, container: { command: ["worker"] } } as const;

/** Sessions that sleep in their Pods, longer than any scenario lasts. */
const ASLEEP = { ...IN_SHELL, workspace: { type: "Pod" } } as const;

/** Faults of the Pods' first connections, in turn: they are open when the line is sent. */
function firstAttach(...faults: readonly (AttachFault | undefined)[]): { attachFaults: AttachFaultChooser } {
  let attached = 0;
  return {
    attachFaults: (_pod, _container, attempt) => {
      if (attempt > 1) return undefined;
      attached += 1;
      return faults[(attached - 1) % faults.length];
    },
  };
}

/** Steps that become possible when faulty replies also reach workers. */
const WORKERS_HEAR_NOTHING = ["worker.first-beat", "worker.beat", "worker.exit", "work-api.lapse"] as const;

const killed = (kind: "worker" | "exit"): FateInput =>
  kind === "worker" ? { kind: "worker", workMs: 300, end: "killed" } : { kind: "killed", afterMs: 300 };

const networkFaults = async (run: TraceRun): Promise<void> => {
  const { simulator } = run.worlds[0];
  for (const call of ["ack", "heartbeat", "stop"] as const) {
    simulator.inject({ kind: "lost-reply", call, probability: 0.15 });
    simulator.inject({ kind: "reset", call, probability: 0.1 });
  }
  simulator.inject({ kind: "latency", call: "ack", ms: 700, probability: 0.2 });
  simulator.inject({ kind: "lost-reply", call: "poll", probability: 0.05 });
  simulator.inject({ kind: "status", call: "list", status: 503, probability: 0.2 });
  await run.serve(12);
};

/** A user stops the running sessions one after the other. */
const usersStop = async (run: TraceRun): Promise<void> => {
  const [{ simulator, environmentId }] = run.worlds;
  const ids = run.enqueue(4);
  await run.until("all are active", () => ids.every((id) => simulator.item(id).state === "active"));
  run.recorder.allow("user.stop");
  for (const [index, id] of ids.entries()) simulator.stopItem(id, { force: index === 3 });
  await run.untilSettled(simulator.items(environmentId).length);
};

const restart = async (run: TraceRun): Promise<void> => {
  const { simulator } = run.worlds[0];
  const ids = run.enqueue(3);
  await run.until("all are acknowledged", () => ids.every((id) => simulator.item(id).acks.length > 0));
  run.enqueue(2);
  await run.stopOperator(0);
  run.startOperator(0);
  await run.untilSettled(5);
};

/**
 * The operator restarts once it got these requests' answers, one for each item, and before it notes them. Returns the
 * items.
 */
async function restartBeforeNote(run: TraceRun, point: string, enqueue: () => string[]): Promise<string[]> {
  const kept = run.keepAnswers(point);
  const items = enqueue();
  await run.until(`${items.length} answers of ${point}`, () => kept() === items.length);
  await run.stopOperator(0);
  run.startOperator(0);
  return items;
}

/** Programs have read their lines. */
const restartAfterLines = async (run: TraceRun): Promise<void> => {
  await restartBeforeNote(run, "session.deliver", () => run.enqueue(3));
  await run.untilSettled(3);
};

const podsDeleted = async (run: TraceRun): Promise<void> => {
  const [world] = run.worlds;
  const ids = run.enqueue(4);
  await run.until(
    "two are acknowledged",
    () => ids.filter((id) => world.simulator.item(id).acks.length > 0).length >= 2,
  );
  run.recorder.allow("fault.delete-pod", "fault.lose-node", "fault.kill-container", "fault.terminate-container");
  for (const { metadata } of world.pods) {
    await world.kube.delete(PODS, { namespace: world.namespace, name: metadata.name ?? "" }).catch(() => undefined);
  }
  await run.untilSettled(4);
};

const environmentDeleted = async (run: TraceRun): Promise<void> => {
  const [world] = run.worlds;
  const ids = run.enqueue(3);
  await run.until("all are active", () => ids.every((id) => world.simulator.item(id).state === "active"));
  run.recorder.allow(
    "user.delete-environment",
    "fault.delete-pod",
    "fault.terminate-container",
    "fault.kill-container",
  );
  await world.deleteEnvironment();
  await world.until("the Environment is gone", () => world.environment === undefined);
};

/** Sessions of several items, each with its volume or in its Pod. */
const serveSessions = async (run: TraceRun): Promise<void> => {
  let items = run.enqueue(3);
  for (let served = items.length; served <= 9; served += items.length) {
    await run.untilSettled(served);
    if (served < 9) items = run.enqueueNext(items);
  }
};

/** Volumes are assigned to their sessions, and no item is acknowledged. */
const restartAfterAssignments = async (run: TraceRun): Promise<void> => {
  const items = await restartBeforeNote(run, "workspace.assign", () => run.enqueue(2));
  await run.untilSettled(2);
  run.enqueueNext(items);
  await run.untilSettled(4);
};

/** The programs of woken sessions have read their lines. */
const restartAfterWakes = async (run: TraceRun): Promise<void> => {
  const items = run.enqueue(2);
  await run.untilSettled(2);
  await restartBeforeNote(run, "session.deliver", () => run.enqueueNext(items));
  await run.untilSettled(4);
};

export const SCENARIOS: readonly Scenario[] = [
  {
    name: "lease Worker: sessions are served",
    world: { ...SHORT, sessions: { warm: 3 }, node: inTurn(WORKS) },
    act: (run) => run.serve(8),
  },
  {
    name: "lease Operator: sessions are served",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 3 }, node: inTurn(PROGRAM) },
    rules: BY_OPERATOR,
    act: (run) => run.serve(8),
  },
  {
    name: "lease Worker, Shell: lines and markers are lost",
    world: {
      ...SHELL_WORLD,
      sessions: { ...IN_SHELL, warm: 3 },
      node: { ...inTurn(WORKS), ...firstAttach({ kind: "output-lost" }, { kind: "input-lost" }, undefined) },
    },
    rules: IN_SHELL,
    act: (run) => run.serve(6),
  },
  {
    name: "lease Operator, Shell: lines and markers are lost",
    world: {
      ...SHELL_WORLD,
      sessions: { ...BY_OPERATOR, ...IN_SHELL, warm: 3 },
      node: { ...inTurn(PROGRAM), ...firstAttach({ kind: "output-lost" }, { kind: "input-lost" }, undefined) },
    },
    rules: { ...BY_OPERATOR, ...IN_SHELL },
    act: (run) => run.serve(6),
  },
  {
    name: "lease Worker, Shell: the operator is stopping between a line and its record",
    world: { ...SHELL_WORLD, sessions: { ...IN_SHELL, warm: 3 }, node: inTurn({ kind: "worker", workMs: 5_000 }) },
    rules: IN_SHELL,
    act: restartAfterLines,
  },
  {
    name: "lease Operator, Shell: the operator is stopping between a line and its record",
    world: {
      ...{ ...TAKEN_UP, container: SHELL_WORLD.container },
      sessions: { ...BY_OPERATOR, ...IN_SHELL, warm: 3 },
      node: inTurn({ kind: "exit", afterMs: 30_000 }),
    },
    rules: { ...BY_OPERATOR, ...IN_SHELL },
    act: restartAfterLines,
  },
  {
    name: "lease Worker: containers die without a word, or leave without a stop",
    world: {
      ...SHORT,
      sessions: { warm: 3 },
      node: inTurn(killed("worker"), { kind: "worker", workMs: 300, end: "exit-without-stop" }, WORKS, { kind: "oom" }),
    },
    allows: ["fault.kill-container", "worker.exit"],
    act: (run) => run.serve(8),
  },
  {
    name: "lease Operator: containers die without a word",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 3 }, node: inTurn(killed("exit"), PROGRAM) },
    rules: BY_OPERATOR,
    allows: ["fault.kill-container"],
    act: (run) => run.serve(6),
  },
  {
    name: "lease Worker, Release: what died without a word runs again",
    world: { ...SHORT, sessions: { warm: 3, onPodFailure: "Release" }, node: inTurn(killed("worker"), WORKS, WORKS) },
    rules: { onPodFailure: "Either" },
    allows: ["fault.kill-container"],
    act: (run) => run.serve(5),
  },
  {
    name: "lease Operator, Release: what died without a word runs again",
    world: {
      ...SHORT,
      sessions: { ...BY_OPERATOR, warm: 3, onPodFailure: "Release" },
      node: inTurn(killed("exit"), PROGRAM, PROGRAM),
    },
    rules: { ...BY_OPERATOR, onPodFailure: "Either" },
    allows: ["fault.kill-container"],
    act: (run) => run.serve(5),
  },
  {
    name: "lease Worker: the operator restarts",
    world: { ...SHORT, sessions: { warm: 3 }, node: inTurn({ kind: "worker", workMs: 3_000 }) },
    act: restart,
  },
  {
    name: "lease Operator: the operator restarts",
    world: { ...TAKEN_UP, sessions: { ...BY_OPERATOR, warm: 3 }, node: inTurn({ kind: "exit", afterMs: 30_000 }) },
    rules: BY_OPERATOR,
    act: restart,
  },
  {
    name: "lease Worker, sleep: sessions of several items are served",
    world: { ...SHELL_WORLD, sessions: { ...ASLEEP, warm: 2 }, node: inTurn(WORKS) },
    rules: IN_SHELL,
    act: serveSessions,
  },
  {
    name: "lease Operator, sleep: sessions of several items are served",
    world: { ...SHELL_WORLD, sessions: { ...BY_OPERATOR, ...ASLEEP, warm: 2 }, node: inTurn(PROGRAM) },
    rules: { ...BY_OPERATOR, ...IN_SHELL },
    act: serveSessions,
  },
  {
    name: "lease Worker, sleep: the operator is stopping between a wake's line and its record",
    world: { ...SHELL_WORLD, sessions: { ...ASLEEP, warm: 2 }, node: inTurn({ kind: "worker", workMs: 5_000 }) },
    rules: IN_SHELL,
    act: restartAfterWakes,
  },
  {
    name: "lease Worker, volumes: sessions of several items are served",
    world: { ...SHORT, sessions: { warm: 2 }, node: inTurn(WORKS) },
    volumes: 12,
    act: serveSessions,
  },
  {
    name: "lease Operator, volumes: sessions of several items are served",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 2 }, node: inTurn(PROGRAM) },
    volumes: 12,
    rules: BY_OPERATOR,
    act: serveSessions,
  },
  {
    name: "lease Worker, volumes: the operator is stopping between an assignment and the acknowledgement",
    world: { ...SHORT, sessions: { warm: 2 }, node: inTurn(WORKS) },
    volumes: 12,
    act: restartAfterAssignments,
  },
  {
    name: "lease Worker: requests and answers are lost",
    world: { ...SHORT, sessions: { warm: 3 }, node: inTurn(WORKS) },
    allows: ["fault.kill-container", ...WORKERS_HEAR_NOTHING],
    act: networkFaults,
  },
  {
    name: "lease Operator: requests and answers are lost",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 3 }, node: inTurn({ kind: "exit", afterMs: 6_000 }) },
    rules: BY_OPERATOR,
    allows: ["fault.silence", "work-api.lapse"],
    act: networkFaults,
  },
  {
    name: "lease Worker: a user stops sessions",
    world: { ...SHORT, sessions: { warm: 4 }, node: inTurn({ kind: "worker", end: "hang" }) },
    act: usersStop,
  },
  {
    name: "lease Operator: a user stops sessions",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 4 }, node: inTurn({ kind: "run" }) },
    rules: BY_OPERATOR,
    act: usersStop,
  },
  {
    name: "lease Worker: a user deletes Pods",
    world: { ...SHORT, sessions: { warm: 2, maxConcurrent: 4 }, node: inTurn({ kind: "worker", workMs: 3_000 }) },
    rules: { sigterm: true },
    act: podsDeleted,
  },
  {
    name: "lease Operator: a user deletes Pods",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 2 }, node: inTurn({ kind: "exit", afterMs: 3_000 }) },
    rules: BY_OPERATOR,
    act: podsDeleted,
  },
  {
    name: "lease Worker: the Environment is deleted",
    world: { ...SHORT, sessions: { warm: 3 }, node: inTurn({ kind: "worker", end: "hang" }) },
    rules: { sigterm: true },
    act: environmentDeleted,
  },
  {
    name: "lease Operator: the Environment is deleted",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 3 }, node: inTurn({ kind: "run" }) },
    rules: BY_OPERATOR,
    act: environmentDeleted,
  },
  {
    name: "lease Worker: two clusters on one queue, with lost answers",
    world: { ...SHORT, sessions: { warm: 2 }, node: inTurn(WORKS, killed("worker"), WORKS) },
    isDoubled: true,
    allows: ["fault.kill-container", ...WORKERS_HEAR_NOTHING],
    act: networkFaults,
  },
  {
    name: "lease Operator: two clusters on one queue, with lost answers",
    world: { ...SHORT, sessions: { ...BY_OPERATOR, warm: 2 }, node: inTurn(PROGRAM, killed("exit"), PROGRAM) },
    isDoubled: true,
    rules: BY_OPERATOR,
    allows: ["fault.kill-container", "fault.silence", "work-api.lapse"],
    act: networkFaults,
  },
];
