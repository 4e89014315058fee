import { ServerTime } from "../core/server-time.ts";

/** The clocks of all Work APIs that claims are at, by address: what one answers says nothing of another's. */
export class ServerTimes {
  readonly #byApi = new Map<string, ServerTime>();
  readonly #wallOf: (ms: number) => number;

  /** @param wallOf as for each of them */
  constructor(wallOf: (ms: number) => number) {
    this.#wallOf = wallOf;
  }

  of(api: string): ServerTime {
    const known = this.#byApi.get(api) ?? new ServerTime(this.#wallOf);
    this.#byApi.set(api, known);
    return known;
  }
}
