import type { Environment } from "../api/environment.ts";
import type { WorkApiClient } from "../work/client.ts";

export interface KeyedClientOptions {
  /** The Environment when its loops were created. */
  readonly found: Environment;
  /** The Environment now. */
  readonly environment: () => Environment;
  readonly originAllowed: (baseUrl: string) => boolean;
  readonly workClient: (environment: Environment, key: () => string) => WorkApiClient;
  /** The environment key that was read last; empty: there is none. */
  readonly keyInUse: () => string;
}

/** The Work API client of one Environment, made again when its spec changes, and the key that it may send. */
export class KeyedClient {
  readonly #options: KeyedClientOptions;
  #client: WorkApiClient;
  /** The part of the spec that `#client` was made from. */
  #madeFrom: string;

  constructor(options: KeyedClientOptions) {
    this.#options = options;
    this.#client = options.workClient(options.found, () => this.key);
    this.#madeFrom = apiText(options.found);
  }

  get client(): WorkApiClient {
    return this.#client;
  }

  /** Whether the operator may send keys to the Environment's address. */
  get isAllowed(): boolean {
    const { environment, originAllowed } = this.#options;
    return originAllowed(environment().spec.api.baseUrl);
  }

  /** The key, if it may be sent; otherwise empty. */
  get key(): string {
    return this.isAllowed ? this.#options.keyInUse() : "";
  }

  /** Makes the client again if the relevant part of the spec changed. Returns whether it did. */
  renew(): boolean {
    const environment = this.#options.environment();
    const text = apiText(environment);
    if (text === this.#madeFrom) return false;
    this.#client = this.#options.workClient(environment, () => this.key);
    this.#madeFrom = text;
    return true;
  }
}

/** Everything in the spec that a Work API client and its key depend on. */
function apiText(environment: Environment): string {
  return JSON.stringify(environment.spec.api);
}
