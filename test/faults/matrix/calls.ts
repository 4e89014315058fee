import { LABEL_PHASE } from "../../../src/api/names.ts";
import { SECRETS } from "../../../src/kube/resource.ts";
import { KEY_USE } from "../../../src/protocol/journal.ts";
import type { KubeRequest } from "../../sessions/loops/kube.ts";
import { type LoopWorld, NAMESPACE } from "../../sessions/loops/loop-world.ts";

/**
 * When the fault begins: before the operator starts, while there is nothing to do, or while work waits and sessions
 * run.
 */
export type Begin = "start" | "idle" | "busy";

/** A row of the matrix: one call of the operator, and the world in which the operator sends it. */
export interface Row {
  readonly sessions?: Record<string, unknown>;
  readonly begin?: Begin;
  /** Items belong to a few sessions in turn, whose volumes are reused. */
  readonly comesBack?: boolean;
  /** Seconds between new items while the fault lasts; 90 by default. */
  readonly arrivalSeconds?: number;
  /** Some acknowledgements get no answer, so that the operator has to list their items. */
  readonly losesAcks?: boolean;
  /** Some markers of started programs are lost, so that the operator has to read logs. */
  readonly losesMarkers?: boolean;
  /** What a user does just after the fault begins, if the operator sends the call for no other reason. */
  readonly first?: (world: LoopWorld) => void;
  /** What another client of the API server does throughout. */
  readonly always?: (world: LoopWorld) => void;
  /** Seconds until Pods are ready; one or two by default. */
  readonly prepareSeconds?: number;
  /** Failures of this call that block nothing are only counted by status code, with all other requests. */
  readonly isOnlyCounted?: boolean;
  /** At most this many requests of it in half an hour while each is refused with a status code; 1,800 by default. */
  readonly most?: number;
  /** What `Ready` or an Event says if the answer to this call is not what a user can fix. */
  readonly says?: string;
  /** `Ready` cannot be written, so an Event or the log has to report the fault. */
  readonly silencesStatus?: boolean;
}

/** The name of a request to the API server in the rows of the matrix. */
export function kubeCallOf({ verb, plural, name, body, subresource, dryRun }: KubeRequest): string {
  const about = `${verb} ${plural}`;
  const fields = (body ?? {}) as {
    readonly stringData?: Readonly<Record<string, string>>;
    readonly metadata?: { readonly labels?: Readonly<Record<string, string>> };
  };
  switch (about) {
    case "patch environments":
      if (subresource === "status") return "patch environments/status";
      return Array.isArray(body) ? "patch environments (add finalizer)" : "patch environments (remove finalizer)";
    case "get secrets":
      return name === "key" ? "get secrets (key)" : "get secrets (claim)";
    case "create secrets":
      return fields.stringData?.[KEY_USE] === "removal" ? "create secrets (removal)" : "create secrets (claim)";
    case "create pods":
      return dryRun ? "create pods (dry run)" : "create pods";
    case "attach pods":
      return "get pods/attach";
    case "log pods":
      return "get pods/log";
    case "patch pods":
      if (subresource === "ephemeralcontainers")
        return `patch pods/ephemeralcontainers${isCheck(body) ? " (check)" : ""}`;
      return `patch pods (${fields.metadata?.labels?.[LABEL_PHASE]})`;
    default:
      return about;
  }
}

/** The check of the right to add turns changes nothing. */
function isCheck(body: unknown): boolean {
  return Object.keys(body as object).length === 0;
}

/** Another client writes to the claims' Secrets, so that the operator has to read them again. */
function editClaims(world: LoopWorld): void {
  const at = String(world.clock.monotonic());
  for (const { metadata } of world.claims) {
    world.server.patch(SECRETS, NAMESPACE, metadata.name ?? "", { metadata: { annotations: { edited: at } } });
  }
}

/** A user pauses the Environment for five seconds every four minutes, which causes the same Events repeatedly. */
function pauseNowAndThen(world: LoopWorld): void {
  if (Math.floor(world.clock.monotonic() / 1_000) % 240 !== 0) return;
  world.patchEnvironment({ spec: { paused: true } });
  world.clock.setTimer(() => world.patchEnvironment({ spec: { paused: false } }), 5_000);
}

/** The operator reports a conflict in its own words, because the server's message adds nothing. */
const CONFLICT = "another client changed or replaced the claim's Secret";

const SHELL = {
  parking: "Shell",
  template: { spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }] } },
};
const PROTECT = { disruption: "Protect" };
const PER_SESSION = {
  warm: 0,
  workspace: {
    type: "PerSession",
    claimTemplate: { resources: { requests: { storage: "1Gi" } } },
    retainSeconds: 60,
  },
};
/** Sessions sleep in their Pods between items. */
export const SLEEPING = { ...SHELL, workspace: { type: "Pod", sleepSeconds: 300 } };

/** Every call to the API server that the operator sends for an Environment with `sessions`. */
export const KUBE_ROWS: Readonly<Record<string, Row>> = {
  "list environments": {},
  "watch environments": {},
  "get environments": { begin: "idle" },
  "patch environments (add finalizer)": { begin: "idle" },
  "patch environments (remove finalizer)": { arrivalSeconds: 300 },
  "patch environments/status": { silencesStatus: true, most: 120 },
  "get secrets (key)": {},
  "get secrets (claim)": { always: editClaims, says: CONFLICT },
  "list secrets": { begin: "start" },
  "create secrets (claim)": { most: 150 },
  "create secrets (removal)": { most: 150, sessions: { warm: 2, parkedMaxAgeSeconds: 60 }, arrivalSeconds: 300 },
  "patch secrets": { says: CONFLICT },
  "delete secrets": { says: CONFLICT },
  "list pods": {},
  "watch pods": {},
  "get pods": {},
  "create pods": {},
  "create pods (dry run)": { begin: "start" },
  "get pods/attach": { sessions: SHELL },
  "get pods/log": { sessions: SHELL, losesMarkers: true },
  "patch pods (running)": {},
  "patch pods (ended)": {},
  "patch pods (sleeping)": { sessions: SLEEPING, comesBack: true },
  "patch pods/ephemeralcontainers": { sessions: SLEEPING, comesBack: true },
  // What it refuses is in `status.sleep`.
  "patch pods/ephemeralcontainers (check)": {
    sessions: SLEEPING,
    comesBack: true,
    begin: "start",
    isOnlyCounted: true,
  },
  "delete pods": {},
  "get poddisruptionbudgets": { sessions: PROTECT },
  "create poddisruptionbudgets": { sessions: PROTECT, begin: "start" },
  "patch poddisruptionbudgets": { sessions: PROTECT },
  "delete poddisruptionbudgets": {
    sessions: PROTECT,
    first: (world) => world.patchEnvironment({ spec: { sessions: { disruption: "Allow" } } }),
  },
  "list networkpolicies": {},
  "watch networkpolicies": {},
  "get networkpolicies": { begin: "start" },
  "create networkpolicies": { begin: "start" },
  "patch networkpolicies": {
    first: (world) => world.patchEnvironment({ spec: { network: { egress: { cidrs: ["198.51.100.0/24"] } } } }),
  },
  "delete networkpolicies": { first: (world) => world.patchEnvironment({ spec: { network: { policy: "None" } } }) },
  "list persistentvolumeclaims": { sessions: PER_SESSION, comesBack: true, arrivalSeconds: 180 },
  "get persistentvolumeclaims": { sessions: PER_SESSION, comesBack: true, arrivalSeconds: 180 },
  "create persistentvolumeclaims": { sessions: PER_SESSION, arrivalSeconds: 180 },
  "patch persistentvolumeclaims": {
    sessions: PER_SESSION,
    comesBack: true,
    arrivalSeconds: 180,
    says: "keeps changing",
  },
  "delete persistentvolumeclaims": { sessions: PER_SESSION },
  "list events": { prepareSeconds: 40, isOnlyCounted: true },
  "create events": {},
  "patch events": { always: pauseNowAndThen },
  "list deployments": {},
  "watch deployments": {},
  "list nodes": { isOnlyCounted: true },
  "watch nodes": { isOnlyCounted: true },
};

/** Every call to the Work API that the operator sends. */
export const WORK_ROWS: Readonly<Record<string, Row>> = {
  poll: {},
  ack: { most: 110 },
  heartbeat: { isOnlyCounted: true },
  stop: { isOnlyCounted: true, says: "called it stopped" },
  list: { losesAcks: true },
  stats: {},
};
