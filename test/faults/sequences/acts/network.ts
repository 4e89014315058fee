import type { FaultInput } from "../../../../simulator/faults.ts";
import type { KubeFaultKind } from "../../../support/kube-proxy.ts";
import { type Act, FAULT_TIMES, pick } from "./act.ts";
import { enqueue } from "./work.ts";

const PARTITION_MS = [300, 1_000, 2_500] as const;

/** Calls of the operator. Workers also send `heartbeat` and `stop`. */
const CALLS = ["poll", "ack", "heartbeat", "stop", "list", "stats"] as const;
/** Calls with their own short time limit, so that a hanging one ends soon. */
const PROTOCOL_CALLS = ["ack", "heartbeat", "stop", "list"] as const;

const NONSENSE = [
  { kind: "html" },
  { kind: "html", status: 200 },
  { kind: "truncated" },
  { kind: "wrong-types" },
] as const;

/** The operator's requests to the API server while it serves, by method and plural; undefined matches any. */
export type KubeCalls = readonly (readonly [method: string | undefined, plural: string | undefined])[];

/** Faults of the operator's Work API. */
export const WORK_API = {
  "api:5xx": troubleWork((choice) => ({ kind: "status", status: pick([500, 503, 529], choice) })),
  "api:429": troubleWork((choice) => ({ kind: "status", status: 429, retryAfterSeconds: choice % 2 })),
  "api:reset": troubleWork(() => ({ kind: "reset" })),
  "api:lost-reply": troubleWork(() => ({ kind: "lost-reply" })),
  "api:hang": troubleWork((choice) => ({ kind: "hang", after: choice % 2 === 0 }), PROTOCOL_CALLS),
  "api:slow": troubleWork((choice) => ({ kind: "latency", ms: pick([300, 900, 1_800], choice) })),
  "api:nonsense": troubleWork((choice) => pick(NONSENSE, choice)),
  "api:duplicate-offer": ({ world }) => {
    world.simulator.inject({ kind: "duplicate-offer", times: 2 });
    return undefined;
  },
} as const satisfies Record<string, Act>;

/** Faults of the API server, and of the network path to it. */
export const kubeApi = (calls: KubeCalls) =>
  ({
    "kube:reset": troubleKube("reset", calls),
    "kube:lost-reply": troubleKube("lost-reply", calls),
    "kube:slow": troubleKube("slow", calls),
    "kube:late": troubleKube("late", calls),
    "kube:5xx": troubleKube("5xx", calls),
    "kube:429": troubleKube("429", calls),
    "kube:conflict": troubleKube("conflict", calls),
    "kube:partition": (stage, choice) => {
      stage.witness.kubeTroubled = true;
      const [replica] = stage.replicas;
      if (!replica) return false;
      replica.proxy.refuse();
      stage.later(pick(PARTITION_MS, choice), () => {
        if (!replica.isKilled) replica.proxy.clear();
      });
      return true;
    },
    "watch:dropped": (stage) => stage.replicas.reduce((open, { proxy }) => open + proxy.dropWatches(), 0) > 0,
    "watch:gone": (stage) => {
      for (const { proxy } of stage.replicas) proxy.expireWatches();
      return undefined;
    },
  }) as const satisfies Record<string, Act>;

function troubleWork(fault: (choice: number) => FaultInput, calls: readonly (typeof CALLS)[number][] = CALLS): Act {
  return (stage, choice) => {
    const call = pick(calls, choice);
    stage.world.simulator.inject({ ...fault(choice), call, times: pick(FAULT_TIMES, Math.floor(choice / 7)) });
    enqueue(stage);
    // The fault may cost a lease.
    if (call === "heartbeat") stage.witness.excuseAll();
    return undefined;
  };
}

function troubleKube(kind: KubeFaultKind, calls: KubeCalls): Act {
  return (stage, choice) => {
    stage.witness.kubeTroubled = true;
    const [method, plural] = kind === "conflict" ? [] : pick(calls, choice);
    const times = pick(FAULT_TIMES, Math.floor(choice / calls.length));
    for (const { proxy } of stage.replicas) proxy.add({ kind, method, plural, times });
    enqueue(stage);
    return undefined;
  };
}
