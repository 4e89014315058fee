import { ServerTime } from "../core/server-time.ts";

/** The server clocks of all Work APIs that claims use, by address: each API has its own clock. */
export class ServerTimes {
  readonly #byApi = new Map<string, ServerTime>();
  readonly #wallOf: (ms: number) => number;

  /** @param wallOf passed to each ServerTime */
  constructor(wallOf: (ms: number) => number) {
    this.#wallOf = wallOf;
  }

  of(api: string): ServerTime {
    const known = this.#byApi.get(api) ?? new ServerTime(this.#wallOf);
    this.#byApi.set(api, known);
    return known;
  }
}
