import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import type { Beats } from "./beat-record.ts";

/** What the process of live-work-main.ts is told at its start, as JSON. */
export interface LiveWorkInput {
  readonly environments: number;
  /** In all of them together. */
  readonly sessions: number;
  /** From the hand-over on no more is granted; unless given, what is asked for. */
  readonly ttlSeconds?: number;
  /** What the operator of before asks for. */
  readonly desiredTtlSeconds: number;
  /** It beats each lease so often. */
  readonly beatMs: number;
}

export interface LiveEnvironment {
  readonly id: string;
  readonly key: string;
  readonly items: readonly LiveItem[];
}

/** An item that an operator acknowledged and beats; times are RFC 3339. */
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
  /** The operator of before ends, as by SIGKILL; `fresh`: right after it has beaten each lease once more. */
  | { readonly do: "hand-over"; readonly fresh: boolean }
  /** Beats are counted from now on. */
  | { readonly do: "mark" }
  | { readonly do: "beats"; readonly intervalMs: number }
  | { readonly do: "account" };

export interface Account {
  /** How many items there are by state. */
  readonly states: Readonly<Record<string, number>>;
  readonly violations: readonly string[];
}

export interface Answers {
  readonly "hand-over": null;
  readonly mark: null;
  readonly beats: Beats;
  readonly account: Account;
}

/** A Work API in a process of its own whose items are live. */
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

  /** What became of the items. @throws {Error} somebody broke the protocol. */
  async account(): Promise<Account> {
    const account = await this.ask({ do: "account" });
    const { violations } = account;
    if (violations.length > 0) {
      throw new Error(`${violations.length} protocol violations, of them:\n${violations.slice(0, 10).join("\n")}`);
    }
    return account;
  }
}
