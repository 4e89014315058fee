import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { realClock } from "../../../src/core/clock.ts";
import { KubeClient } from "../../../src/kube/client.ts";
import { loadKubeConfig } from "../../../src/kube/config.ts";
import type { Pod, Resource } from "../../../src/kube/resource.ts";
import type { TestCluster } from "../../support/cluster.ts";
import type { OperatorProcess } from "../../support/operator-process.ts";
import { startWorld, type World } from "../../support/world.ts";
import { raw, StrictServer } from "../../work/strict-server.ts";
import { PATIENCE_MS } from "../support/patience.ts";
import { type Right, type Rule, rightOf, untilInForce } from "./in-force.ts";

const RBAC: Resource = {
  group: "rbac.authorization.k8s.io",
  version: "v1",
  plural: "roles",
  kind: "Role",
  namespaced: true,
};

/** Aggregation adds this right to `edit`, so it takes effect last. */
const EDITS_ENVIRONMENTS: Right = { verb: "create", group: "berth.dev", resource: "environments" };

/** The duration of a session that outlives its test. All others are short. */
const LONG_MS = 3_600_000;
const SHORT_MS = 200;

/**
 * Two namespaces served by one operator: the victim's, with a running session, and the tenant's own. It also runs a
 * listener at an allowed address that records each request it receives.
 */
export class Tenancy implements AsyncDisposable {
  readonly victim: World;
  readonly own: World;
  readonly listener: StrictServer;
  /** Work id of the session that runs in the victim's namespace. */
  running = "";
  operator: OperatorProcess;
  readonly #cluster: TestCluster;
  readonly #clients: KubeClient[] = [];
  #long = true;

  private constructor(cluster: TestCluster, victim: World, own: World, listener: StrictServer) {
    this.#cluster = cluster;
    this.victim = victim;
    this.own = own;
    this.listener = listener;
    this.operator = undefined as unknown as OperatorProcess;
  }

  static async start(cluster: TestCluster): Promise<Tenancy> {
    let made: Tenancy | undefined;
    const node = { fates: (_pod: Pod) => ({ kind: "worker" as const, workMs: made?.workMs ?? SHORT_MS }) };
    const victim = await startWorld(cluster, { node });
    const own = await startWorld(cluster);
    const listener = await StrictServer.start();
    listener.fallback = raw(404, "");
    made = new Tenancy(cluster, victim, own, listener);
    await victim.createEnvironment();
    await own.createEnvironment();
    await made.startOperator();
    await victim.untilParked(1);
    const item = victim.simulator.enqueue(victim.environmentId);
    made.running = item.id;
    // The kubelet may start the container before the operator labels the Pod.
    const isMarked = ({ metadata }: Pod) => metadata.labels?.["berth.dev/work-id"] === item.id;
    await victim.until("a session runs", () => made.item().state === "active" && victim.pods.some(isMarked));
    made.#long = false;
    await victim.untilParked(1);
    return made;
  }

  get workMs(): number {
    return this.#long ? LONG_MS : SHORT_MS;
  }

  item(id = this.running) {
    const found = this.victim.simulator.items(this.victim.environmentId).find((item) => item.id === id);
    if (!found) throw new Error(`no item ${id}`);
    return found;
  }

  async startOperator(): Promise<void> {
    const origins = `${this.own.simulator.url},${this.listener.origin}`;
    const flags = ["--namespace", this.own.namespace, "--allowed-api-origins", origins];
    this.operator = (await this.victim.startOperatorProcess({ flags })).process;
  }

  /** The operator lists Secrets with the labels of claims only at its start. */
  async restartOperator(): Promise<void> {
    await this.operator.kill();
    await this.startOperator();
  }

  /** A user with a ClusterRole or rules in one namespace, and no rights elsewhere. */
  async tenant(name: string, namespace: string, rights: "edit" | readonly Rule[]): Promise<KubeClient> {
    const user = `${name}-${namespace}`;
    const metadata = { name, namespace };
    if (typeof rights !== "string") await this.victim.kube.create(RBAC, { metadata, rules: rights } as never);
    const roleRef =
      typeof rights === "string"
        ? { kind: "ClusterRole", name: rights, apiGroup: RBAC.group }
        : { kind: "Role", name, apiGroup: RBAC.group };
    const subjects = [{ kind: "User", name: user, apiGroup: RBAC.group }];
    const bindings = { ...RBAC, plural: "rolebindings", kind: "RoleBinding" };
    await this.victim.kube.create(bindings, { metadata, roleRef, subjects } as never);
    const [first] = typeof rights === "string" ? [] : rights;
    await untilInForce(this.#cluster.api, user, namespace, first ? rightOf(first) : EDITS_ENVIRONMENTS);
    const client = new KubeClient({
      access: loadKubeConfig(await this.#cluster.kubeconfigFor(user)),
      clock: realClock,
    });
    this.#clients.push(client);
    return client;
  }

  /** Credentials that no other party may ever receive. */
  get secrets(): readonly string[] {
    const kubeconfig = parse(readFileSync(this.#cluster.operatorKubeconfig, "utf8")) as {
      users: { user: { token: string } }[];
    };
    const tokens = kubeconfig.users.map(({ user }) => user.token);
    return [this.victim.simulator.environmentKey(this.victim.environmentId), ...tokens];
  }

  /** Checks that the victim's session still runs as before and that its next session is served. */
  async expectVictimUnharmed(): Promise<void> {
    const { victim } = this;
    const next = victim.simulator.enqueue(victim.environmentId).id;
    await victim.until("the next session is served", () => this.item(next).state === "stopped", PATIENCE_MS);
    const { state, acks } = this.item();
    if (state !== "active" || acks.length !== 1) {
      throw new Error(`the session of the other namespace is ${state}, acknowledged ${acks.length} times`);
    }
    victim.simulator.assertNoViolations();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.operator.kill();
    await Promise.all(this.#clients.map((client) => client.close()));
    await this.own[Symbol.asyncDispose]();
    await this.victim[Symbol.asyncDispose]();
    await this.listener[Symbol.asyncDispose]();
  }
}
