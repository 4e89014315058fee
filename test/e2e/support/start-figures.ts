import { type Distribution, distribution } from "../../../simulator/report.ts";
import { PODS, type Pod, SECRETS, type Secret } from "../../../src/kube/resource.ts";
import { AuditLog } from "../../../testbed/cluster/audit.ts";
import { nodeControl } from "./operator-process.ts";
import type { E2eWorld } from "./world.ts";

/** The duration of one session's start, in milliseconds from its beginning: the opening or the creation of its Pod. */
export interface Start {
  readonly toRunning: number;
  readonly toFirstBeat: number;
}

/** Times of requests from the API server's audit log, on this machine's clock. */
export class RequestTimes {
  readonly #audit: AuditLog;
  readonly #namespace: string;

  private constructor(audit: AuditLog, namespace: string) {
    this.#audit = audit;
    this.#namespace = namespace;
  }

  static async of(world: E2eWorld): Promise<RequestTimes> {
    const { auditLog } = await nodeControl(world).state();
    return new RequestTimes(new AuditLog(auditLog, (path) => world.kube.raw("GET", path)), world.namespace);
  }

  /**
   * When the API server answered the first patch of a Pod (its touch), in ms since the epoch.
   * @throws {Error} if there was none
   */
  async ofFirstPatch(pod: string): Promise<number> {
    const entries = await this.#audit.entries({ namespace: this.#namespace, resource: "pods", verb: "patch" });
    const found = entries.find(({ name, subresource, code }) => name === pod && subresource === "" && code < 300);
    if (!found) throw new Error(`the audit log has no patch of Pod ${pod}`);
    return found.completedAt;
  }
}

/**
 * When the containers of a namespace's Pods were first seen running, in ms since the epoch. The kubelet's own times are
 * in seconds.
 */
export class RunningTimes implements Disposable {
  readonly #byPod = new Map<string, number>();
  readonly #stop: () => void;

  constructor(world: E2eWorld) {
    this.#stop = world.views.pods.subscribe(({ object: { metadata, status } }) => {
      const { name = "" } = metadata;
      const state = status?.containerStatuses?.[0]?.state;
      if ((state?.running ?? state?.terminated) && !this.#byPod.has(name)) this.#byPod.set(name, Date.now());
    });
  }

  of(pod: string): number | undefined {
    return this.#byPod.get(pod);
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}

/** The stock worker's variable that a parked container waits for, and its key in the Secret. */
const KEY = "ANTHROPIC_WORK_SECRET";

/**
 * A Pod without Berth. It is like one of Berth's, without the parts that don't affect its start. Its variables come
 * from the Secret of the same name.
 */
export function plainPod(world: E2eWorld, name: string, variables: readonly string[]): Pod {
  const restricted = { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } };
  return {
    metadata: { name, namespace: world.namespace, labels: { probe: "start" } },
    spec: {
      restartPolicy: "Never",
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 10,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [
        {
          name: "worker",
          image: world.cluster.images.typescript,
          imagePullPolicy: "IfNotPresent",
          resources: { requests: { cpu: "10m", memory: "64Mi" } },
          securityContext: restricted,
          env: [
            { name: "BERTH_WORKER_MAX_IDLE_MS", value: "300" },
            ...variables.map((variable) => ({
              name: variable,
              valueFrom: { secretKeyRef: { name, key: variable } },
            })),
          ],
        },
      ],
    },
  };
}

/** All variables of a worker's item; the container waits for the last one. */
export const VARIABLES = [
  "ANTHROPIC_BASE_URL",
  "ANTHROPIC_ENVIRONMENT_ID",
  "ANTHROPIC_WORK_ID",
  "ANTHROPIC_SESSION_ID",
  KEY,
] as const;

/** Creates a Secret with all of an item's variables. */
export async function createWhole(world: E2eWorld, name: string, item: Record<string, string>): Promise<void> {
  await world.kube.create(SECRETS, { metadata: { name, namespace: world.namespace }, stringData: item } as Secret);
}

/**
 * Creates the same Secret in two steps: the variable that the container waits for comes last, as after an
 * acknowledgement.
 */
export async function createThenKey(world: E2eWorld, name: string, item: Record<string, string>): Promise<void> {
  const { [KEY]: key = "", ...rest } = item;
  await createWhole(world, name, rest);
  await world.kube.patch(
    SECRETS,
    { namespace: world.namespace, name },
    { stringData: { [KEY]: key } },
    { type: "merge" },
  );
}

/** Any change of a Pod makes the kubelet check it at once. */
export async function touch(world: E2eWorld, name: string, n: number): Promise<void> {
  const patch = { metadata: { annotations: { touched: String(n) } } };
  await world.kube.patch(PODS, { namespace: world.namespace, name }, patch, { type: "merge" });
}

/** One row of the table: a name, and the measured times in milliseconds. */
export interface Row {
  readonly name: string;
  readonly times: readonly number[];
}

/**
 * A Markdown table of milliseconds: count, quantiles by nearest rank, and each median as a multiple of the first row's.
 */
export function table(title: string, rows: readonly Row[]): string {
  const first = distribution(rows[0]?.times ?? [])?.p50 ?? Number.NaN;
  const line = ({ name, times }: Row) => {
    const { count, p50, p90, max }: Pick<Distribution, "count" | "p50" | "p90" | "max"> = distribution(times) ?? {
      count: 0,
      p50: Number.NaN,
      p90: Number.NaN,
      max: Number.NaN,
    };
    const cells = [p50, p90, max].map((ms) => String(Math.round(ms)));
    return `| ${[name, count, ...cells, (p50 / first).toFixed(1)].join(" | ")} |`;
  };
  return [`| ${title} | n | p50 | p90 | max | ratio |`, "|---|---|---|---|---|---|", ...rows.map(line)].join("\n");
}
