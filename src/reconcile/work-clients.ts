import type { Environment } from "../api/environment.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { KeyInUse } from "./key-keeper.ts";

export interface WorkClientsOptions {
  /** The Environment when its loops were created. */
  readonly found: Environment;
  /** The Environment now. */
  readonly environment: () => Environment;
  readonly originAllowed: (baseUrl: string) => boolean;
  readonly workClient: (environment: Environment, key: () => string) => WorkApiClient;
  /** The environment keys in use, by where they may be sent. */
  readonly keys: () => Pick<KeyInUse, "for" | "forEarlier">;
  /** The addresses that the status records. */
  readonly recorded: () => readonly string[];
}

/** The Work API clients of one Environment: one for its spec's address, and one for each earlier address in use. */
export class WorkClients {
  readonly #options: WorkClientsOptions;
  #work: WorkApiClient;
  /** The part of the spec that `#work` was made from. */
  #madeFrom: string;
  /** Clients by address, for claims from addresses that the spec no longer names. */
  readonly #elsewhere = new Map<string, WorkApiClient>();

  constructor(options: WorkClientsOptions) {
    this.#options = options;
    this.#work = options.workClient(options.found, () => this.key);
    this.#madeFrom = apiText(options.found);
  }

  /** Whether the operator may send keys to the spec's address. */
  get isAllowed(): boolean {
    const { environment, originAllowed } = this.#options;
    return originAllowed(environment().spec.api.baseUrl);
  }

  /** The key, if it may be sent to the spec's address; otherwise empty. */
  get key(): string {
    const { keys, environment } = this.#options;
    return this.isAllowed ? keys().for(environment().spec.api) : "";
  }

  /** Recreates the clients if the relevant part of the spec changed. Returns whether it did. */
  renew(): boolean {
    const environment = this.#options.environment();
    const text = apiText(environment);
    if (text === this.#madeFrom) return false;
    this.#work = this.#options.workClient(environment, () => this.key);
    this.#madeFrom = text;
    this.#elsewhere.clear();
    return true;
  }

  /**
   * The client for the spec's address, or for an earlier address. An earlier address gets its key only while it is
   * allowed and recorded in the status: anyone who can create Secrets can forge a claim that names any address.
   */
  at(baseUrl = ""): WorkApiClient {
    if (baseUrl === "" || baseUrl === this.#work.baseUrl) return this.#work;
    const known = this.#elsewhere.get(baseUrl);
    if (known) return known;
    const { environment, originAllowed, workClient, recorded, keys } = this.#options;
    const now = environment();
    const then = { ...now, spec: { ...now.spec, api: { ...now.spec.api, baseUrl } } };
    const isKnown = () => recorded().includes(baseUrl) && originAllowed(baseUrl);
    const made = workClient(then, () => (isKnown() ? keys().forEarlier(baseUrl, environment().spec.api) : ""));
    this.#elsewhere.set(baseUrl, made);
    return made;
  }
}

/** Everything in the spec that a Work API client depends on. */
function apiText(environment: Environment): string {
  const { keySecretRef, ...api } = environment.spec.api;
  return JSON.stringify([api, environment.spec.environmentId, keySecretRef]);
}
