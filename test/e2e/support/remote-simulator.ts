import type { ArrivalsInput, EnqueueInput } from "../../../simulator/arrivals.ts";
import type { FaultInput, FaultRecord } from "../../../simulator/faults.ts";
import type { ItemRecord } from "../../../simulator/item.ts";
import type { Report } from "../../../simulator/report.ts";
import type { ScriptInput } from "../../../simulator/script.ts";
import type { SessionRecord } from "../../../simulator/session.ts";
import type { Switches } from "../../../simulator/switches.ts";
import { type Violation, type ViolationKind, violationText } from "../../../simulator/violations.ts";
import type { RequestRecord } from "../../../simulator/world.ts";
import type { PodProxy } from "./pod-proxy.ts";
import type { SimulatorPlace } from "./provided.ts";

/** An environment of the simulator, as the stats call shows it. */
export interface EnvironmentRecord {
  readonly id: string;
  readonly stats: Readonly<Record<string, unknown>>;
  readonly pollsWaiting: number;
}

/** The admin API refused a request. */
export class SimulatorError extends Error {
  override readonly name = "SimulatorError";
  readonly status: number;
  constructor(request: string, status: number, text: string) {
    super(`simulator: ${request}: ${status} ${text.slice(0, 500)}`);
    this.status = status;
  }
}

/**
 * The simulator that runs as a Pod, with the methods of `Simulator` in simulator/simulator.ts. Many tests share it:
 * methods without an environmentId refer to `environmentId` unless they say otherwise.
 */
export class RemoteSimulator {
  readonly environmentId: string;
  /** The URL for Pods. */
  readonly url: string;
  readonly #proxy: PodProxy;
  readonly #place: SimulatorPlace;

  constructor(proxy: PodProxy, place: SimulatorPlace, environmentId: string) {
    this.#proxy = proxy;
    this.#place = place;
    this.environmentId = environmentId;
    this.url = place.url;
  }

  /**
   * Creates an environment and returns the simulator as seen from it. `ttlSeconds` is the TTL of its leases; 90 by
   * default.
   */
  static async create(
    proxy: PodProxy,
    place: SimulatorPlace,
    options: { ttlSeconds?: number; workspaceId?: string } = {},
  ): Promise<RemoteSimulator> {
    const nobody = new RemoteSimulator(proxy, place, "");
    const { id } = await nobody.createEnvironment(options);
    return new RemoteSimulator(proxy, place, id);
  }

  // --- environments -----------------------------------------------------------------------------------------------

  createEnvironment(
    options: { id?: string; key?: string; ttlSeconds?: number; workspaceId?: string } = {},
  ): Promise<{ id: string; key: string }> {
    return this.#call("POST", "environments", options);
  }

  /** The current key. */
  async environmentKey(environmentId = this.environmentId): Promise<string> {
    return (await this.#call<{ key: string }>("GET", `environments/${environmentId}/key`)).key;
  }

  /** Creates a new key; the simulator answers 401 to the old one from now on. */
  async rotateKey(environmentId = this.environmentId, key?: string): Promise<string> {
    const body = key === undefined ? {} : { key };
    return (await this.#call<{ key: string }>("POST", `environments/${environmentId}/key`, body)).key;
  }

  environment(environmentId = this.environmentId): Promise<EnvironmentRecord> {
    return this.#call("GET", `environments/${environmentId}`);
  }

  async stats(environmentId = this.environmentId): Promise<Readonly<Record<string, unknown>>> {
    return (await this.environment(environmentId)).stats;
  }

  async pollsWaiting(environmentId = this.environmentId): Promise<number> {
    return (await this.environment(environmentId)).pollsWaiting;
  }

  // --- work -------------------------------------------------------------------------------------------------------

  enqueue(environmentId: string, input: EnqueueInput = {}): Promise<ItemRecord> {
    return this.#call("POST", `environments/${environmentId}/items`, input);
  }

  /**
   * Polls and acknowledges as an operator does. Returns the variables of the item's worker; undefined if nothing waits.
   */
  claim(environmentId = this.environmentId): Promise<Record<string, string> | undefined> {
    return this.#call("POST", `environments/${environmentId}/claim`);
  }

  /** Starts arrivals; `stopArrivals` ends them. */
  arrivals(environmentId: string, plan: ArrivalsInput): Promise<{ id: string }> {
    return this.#call("POST", `environments/${environmentId}/arrivals`, plan);
  }

  stopArrivals(id: string): Promise<void> {
    return this.#call("DELETE", `arrivals/${id}`);
  }

  item(workId: string): Promise<ItemRecord> {
    return this.#call("GET", `items/${workId}`);
  }

  items(environmentId = this.environmentId): Promise<ItemRecord[]> {
    return this.#call("GET", `items?environmentId=${environmentId}`);
  }

  /** Stops an item as a user would. */
  stopItem(workId: string, options: { force?: boolean } = {}): Promise<void> {
    return this.#call("POST", `items/${workId}/stop`, options);
  }

  /** From now on the simulator answers 401 to the item's sessions tokens. */
  revokeTokens(workId: string): Promise<void> {
    return this.#call("POST", `items/${workId}/revoke-tokens`);
  }

  // --- sessions ---------------------------------------------------------------------------------------------------

  session(sessionId: string): Promise<SessionRecord> {
    return this.#call("GET", `sessions/${sessionId}`);
  }

  sessions(environmentId = this.environmentId): Promise<SessionRecord[]> {
    return this.#call("GET", `sessions?environmentId=${environmentId}`);
  }

  /** Sends a message to a session. It queues a new work item if the session has no worker any more. */
  sendMessage(sessionId: string, script: ScriptInput): Promise<void> {
    return this.#call("POST", `sessions/${sessionId}/messages`, script);
  }

  interrupt(sessionId: string): Promise<void> {
    return this.#call("POST", `sessions/${sessionId}/interrupt`);
  }

  terminateSession(sessionId: string): Promise<void> {
    return this.#call("POST", `sessions/${sessionId}/terminate`);
  }

  /** A user's answer to a call with `ask`. */
  confirm(sessionId: string, toolUseId: string, allow: boolean): Promise<void> {
    return this.#call("POST", `sessions/${sessionId}/confirm`, { toolUseId, allow });
  }

  deleteSession(sessionId: string): Promise<void> {
    return this.#call("DELETE", `sessions/${sessionId}`);
  }

  // --- faults -----------------------------------------------------------------------------------------------------

  /**
   * Injects a fault for calls about this environment, unless it names another one. Calls of the sessions API name none.
   */
  inject(fault: FaultInput): Promise<FaultRecord> {
    return this.#call("POST", "faults", { environmentId: this.environmentId, ...fault });
  }

  /** All active faults of every environment. */
  faults(): Promise<FaultRecord[]> {
    return this.#call("GET", "faults");
  }

  /** Removes one fault, or all of this environment. */
  async clearFaults(id?: string): Promise<void> {
    if (id !== undefined) return await this.#call("DELETE", `faults/${id}`);
    for (const { id, fault } of await this.faults()) {
      if (fault.environmentId === this.environmentId) await this.#call("DELETE", `faults/${id}`);
    }
  }

  /** For the whole simulator: use it only where no other test runs, and restore the switches. */
  setSwitches(switches: Partial<Switches>): Promise<Switches> {
    return this.#call("PATCH", "switches", switches);
  }

  // --- what happened ----------------------------------------------------------------------------------------------

  async violations(environmentId = this.environmentId): Promise<Violation[]> {
    return (await this.#violations(environmentId)).violations;
  }

  /** Breaches that a correct client may cause: see `Excuse` in simulator/violations.ts. */
  async excused(environmentId = this.environmentId): Promise<Violation[]> {
    return (await this.#violations(environmentId)).excused;
  }

  /** @throws {Error} with a line for each unexpected violation, if there are any */
  async assertNoViolations(expected: readonly ViolationKind[] = []): Promise<void> {
    const lines = (await this.violations()).filter(({ kind }) => !expected.includes(kind)).map(violationText);
    if (lines.length > 0) throw new Error(`${lines.length} protocol violations:\n${lines.join("\n")}`);
  }

  /** The recent requests about this environment, oldest first, with their senders. */
  requests(environmentId = this.environmentId): Promise<RequestRecord[]> {
    return this.#call("GET", `requests?environmentId=${environmentId}`);
  }

  /** For the whole simulator. */
  report(): Promise<Report> {
    return this.#call("GET", "report");
  }

  /** Violations of the whole simulator. */
  async allViolations(): Promise<Violation[]> {
    return (await this.#call<{ violations: Violation[] }>("GET", "violations")).violations;
  }

  /** Every credential that the whole simulator ever issued: environment keys, work secrets, sessions tokens. */
  credentials(): Promise<string[]> {
    return this.#call("GET", "credentials");
  }

  #violations(environmentId: string): Promise<{ violations: Violation[]; excused: Violation[] }> {
    return this.#call("GET", `violations?environmentId=${environmentId}`);
  }

  async #call<T>(method: "GET" | "POST" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
    const { adminToken, namespace, pod, port } = this.#place;
    const headers = { "x-simulator-token": adminToken };
    const request = { method, path: `/admin/${path}`, headers, ...(body === undefined ? {} : { body }) };
    const { status, text } = await this.#proxy.toPod({ namespace, pod, port }, request);
    if (status >= 300) throw new SimulatorError(`${method} ${path}`, status, text);
    return (text === "" ? undefined : JSON.parse(text)) as T;
  }
}
