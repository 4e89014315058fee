import type { Environment } from "../api/environment.ts";
import type { WorkApiClient } from "../work/client.ts";
import type { KeyInUse } from "./key-keeper.ts";

export interface WorkClientsOptions {
  /** As it was when its loops began. */
  readonly found: Environment;
  /** As it is now. */
  readonly environment: () => Environment;
  readonly originAllowed: (baseUrl: string) => boolean;
  readonly workClient: (environment: Environment, key: () => string) => WorkApiClient;
  /** The environment keys in use, by where they may be sent. */
  readonly keys: () => Pick<KeyInUse, "for" | "forEarlier">;
  /** The addresses that the status has. */
  readonly recorded: () => readonly string[];
}

/** The Work API clients of one Environment: that of its spec, and those of addresses that its spec named before. */
export class WorkClients {
  readonly #options: WorkClientsOptions;
  #work: WorkApiClient;
  /** What `#work` was made from. */
  #madeFrom: string;
  /** By address: where items were claimed that the spec does not name any more. */
  readonly #elsewhere = new Map<string, WorkApiClient>();

  constructor(options: WorkClientsOptions) {
    this.#options = options;
    this.#work = options.workClient(options.found, () => this.key);
    this.#madeFrom = apiText(options.found);
  }

  /** Whether the operator may send keys to the address that the spec names. */
  get isAllowed(): boolean {
    const { environment, originAllowed } = this.#options;
    return originAllowed(environment().spec.api.baseUrl);
  }

  /** The key as far as it may be sent to the address of the spec; empty: none is. */
  get key(): string {
    const { keys, environment } = this.#options;
    return this.isAllowed ? keys().for(environment().spec.api) : "";
  }

  /** Makes them anew where the spec says something else than what they were made from. Returns whether it does. */
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
   * The Work API of the spec; or at an address that the spec named before, with the key for it, if the address is still
   * allowed and the status has it: whoever may create Secrets can make up a claim that names any address.
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

/** Everything of the spec that a Work API client is made from. */
function apiText(environment: Environment): string {
  const { keySecretRef, ...api } = environment.spec.api;
  return JSON.stringify([api, environment.spec.environmentId, keySecretRef]);
}
