import { redact } from "../observe/logger.ts";
import type { EnvironmentShown, SessionShown } from "./shown.ts";

/** The process that serves the page. With several replicas, each shows only what it serves itself. */
export interface Replica {
  readonly identity: string;
  readonly version: string;
  /** The address of this version's pages, without a slash at the end; empty if it is not known. */
  readonly docsUrl: string;
  /** The number of parts that the Environments are divided into. */
  readonly shards: number;
  /** The shards that this replica serves. */
  readonly served: readonly number[];
}

/** A snapshot of everything that the page shows. */
export interface Look {
  readonly nowMs: number;
  readonly replica: Replica;
  readonly environments: Iterable<EnvironmentShown>;
  readonly sessions: Iterable<SessionShown>;
}

/** The JSON that was last sent, by key. */
type Known = Map<string, string>;

/**
 * The changes between two snapshots, as JSON for the page: `{nowMs, replica?, environments: {set, gone}, sessions:
 * {set, gone}}`. All output passes through here, which redacts credentials that got into a text, for example from a
 * server's answer.
 */
export class Changes {
  #replica = "";
  #environments: Known = new Map();
  #sessions: Known = new Map();
  #nowMs = 0;

  /** Takes a new snapshot. Returns the changes; null if only the time has changed. */
  take(look: Look): string | null {
    const replica = JSON.stringify(look.replica);
    const environments = changed(this.#environments, look.environments, ({ key }) => key);
    const sessions = changed(this.#sessions, look.sessions, ({ id }) => id);
    const isSame = replica === this.#replica && environments.text === null && sessions.text === null;
    this.#nowMs = look.nowMs;
    const parts = [
      `"nowMs":${look.nowMs}`,
      ...(replica === this.#replica ? [] : [`"replica":${replica}`]),
      ...(environments.text === null ? [] : [`"environments":${environments.text}`]),
      ...(sessions.text === null ? [] : [`"sessions":${sessions.text}`]),
    ];
    this.#replica = replica;
    this.#environments = environments.now;
    this.#sessions = sessions.now;
    return isSame ? null : redact(`{${parts.join(",")}}`);
  }

  /** The whole last snapshot, for a new viewer. */
  whole(): string {
    const all = (known: Known) => `{"set":[${[...known.values()].join(",")}],"gone":[]}`;
    const head = `"nowMs":${this.#nowMs},"whole":true,"replica":${this.#replica}`;
    return redact(`{${head},"environments":${all(this.#environments)},"sessions":${all(this.#sessions)}}`);
  }
}

function changed<T>(
  before: Known,
  items: Iterable<T>,
  keyOf: (item: T) => string,
): { now: Known; text: string | null } {
  const now: Known = new Map();
  const set: string[] = [];
  for (const item of items) {
    const key = keyOf(item);
    const text = JSON.stringify(item);
    now.set(key, text);
    if (before.get(key) !== text) set.push(text);
  }
  const gone = [...before.keys()].filter((key) => !now.has(key));
  if (set.length === 0 && gone.length === 0) return { now, text: null };
  return { now, text: `{"set":[${set.join(",")}],"gone":${JSON.stringify(gone)}}` };
}
