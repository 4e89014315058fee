import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Beats } from "./beat-record.ts";

/** The input of the process of live-work-main.ts, as JSON. */
export interface LiveWorkInput {
  readonly environments: number;
  /** The total number of sessions in all environments. */
  readonly sessions: number;
  /** The longest TTL that the Work API grants after the hand-over. Defaults to what the client requests. */
  readonly ttlSeconds?: number;
  /** The TTL that the previous operator requests. */
  readonly desiredTtlSeconds: number;
  /** The interval at which the previous operator sends heartbeats for each lease. */
  readonly beatMs: number;
}

export interface LiveEnvironment {
  readonly id: string;
  readonly key: string;
  readonly items: readonly LiveItem[];
}

/** An item that an operator acknowledged and sends heartbeats for. Times are RFC 3339. */
export interface LiveItem {
  readonly workId: string;
  readonly sessionId: string;
  readonly secret: string;
  readonly queuedAt: string;
  readonly acknowledgedAt: string;
  /** Milliseconds since the epoch. */
  readonly polledMs: number;
}

export type Ask =
  /** Ends the previous operator as by SIGKILL. With `fresh`, it first sends one more heartbeat for each lease. */
  | { readonly do: "hand-over"; readonly fresh: boolean }
  /** Starts to count heartbeats. */
  | { readonly do: "mark" }
  | { readonly do: "beats"; readonly intervalMs: number }
  | { readonly do: "account" };

export interface Account {
  /** The number of items by state. */
  readonly states: Readonly<Record<string, number>>;
  readonly violations: readonly string[];
}

export interface Answers {
  readonly "hand-over": null;
  readonly mark: null;
  readonly beats: Beats;
  readonly account: Account;
}

/** A Work API in its own process whose items are live. */
export class LiveWork implements AsyncDisposable {
  readonly url: string;
  readonly environments: readonly LiveEnvironment[];
  readonly #child: ChildProcess;
  readonly #waiting: Map<number, PromiseWithResolvers<unknown>>;
  #lastId = 0;

  private constructor(
    child: ChildProcess,
    waiting: Map<number, PromiseWithResolvers<unknown>>,
    first: Pick<LiveWork, "url" | "environments">,
  ) {
    this.#child = child;
    this.#waiting = waiting;
    this.url = first.url;
    this.environments = first.environments;
  }

  static async start(input: LiveWorkInput): Promise<LiveWork> {
    const main = new URL("./live-work-main.ts", import.meta.url);
    const child = fork(main, [JSON.stringify(input)]);
    const waiting = new Map<number, PromiseWithResolvers<unknown>>();
    const first = Promise.withResolvers<unknown>();
    waiting.set(0, first);
    child.on("message", ({ id, answer }: { id: number; answer: unknown }) => {
      waiting.get(id)?.resolve(answer);
      waiting.delete(id);
    });
    child.once("exit", (code) => {
      for (const { reject } of waiting.values()) reject(new Error(`the Work API's process ended with ${code}`));
    });
    return new LiveWork(child, waiting, (await first.promise) as Pick<LiveWork, "url" | "environments">);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.disconnect();
    await ended;
  }

  get count(): number {
    return this.environments.reduce((sum, { items }) => sum + items.length, 0);
  }

  async ask<K extends Ask["do"]>(ask: Ask & { readonly do: K }): Promise<Answers[K]> {
    this.#lastId += 1;
    const id = this.#lastId;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.#child.send({ id, ask });
    return (await waiting.promise) as Answers[K];
  }

  /** Returns the states of the items. @throws {Error} if a client broke the protocol */
  async account(): Promise<Account> {
    const account = await this.ask({ do: "account" });
    const { violations } = account;
    if (violations.length > 0) {
      throw new Error(`${violations.length} protocol violations, for example:\n${violations.slice(0, 10).join("\n")}`);
    }
    return account;
  }
}
