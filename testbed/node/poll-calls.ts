import { Agent, request } from "undici";

/** Identifies a poller. */
export interface PollerIdentity {
  readonly baseUrl: string;
  readonly environmentId: string;
  readonly environmentKey: string;
  readonly workerId: string;
}

/** The fields of a polled item that a worker reads. */
export interface PolledItem {
  readonly id: string;
  readonly data: { readonly type: string; readonly id: string };
  readonly secret?: string;
}

/** The value that the stock poller sends. */
const BLOCK_MS = 999;

/** The result of a poll or an acknowledgement. A clear rejection ends a stock worker. */
export type PollAnswer =
  | { readonly kind: "item"; readonly item: PolledItem }
  | { readonly kind: "nothing" }
  | { readonly kind: "failed" }
  | { readonly kind: "refused"; readonly status: number };

/** A poller's calls over HTTP. Each poller has its own connection while it waits. */
export class PollCalls {
  readonly #agent = new Agent({ allowH2: false });

  async poll(who: PollerIdentity, signal: AbortSignal): Promise<PollAnswer> {
    const answer = await this.#send(who, "GET", `poll?block_ms=${BLOCK_MS}&beta=true`, signal);
    if (answer === undefined || answer.status >= 500 || answer.status === 429) return { kind: "failed" };
    if (answer.status >= 400) return { kind: "refused", status: answer.status };
    const item = answer.body as PolledItem | null | undefined;
    return item?.id === undefined ? { kind: "nothing" } : { kind: "item", item };
  }

  /** Returns true if the item is ours. */
  async acknowledge(who: PollerIdentity, workId: string, signal: AbortSignal): Promise<boolean> {
    const answer = await this.#send(who, "POST", `${encodeURIComponent(workId)}/ack?beta=true`, signal);
    return answer !== undefined && answer.status < 400;
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(who: PollerIdentity, method: "GET" | "POST", path: string, signal: AbortSignal) {
    try {
      const url = new URL(`/v1/environments/${encodeURIComponent(who.environmentId)}/work/${path}`, who.baseUrl);
      const { statusCode, body } = await request(url, {
        dispatcher: this.#agent,
        method,
        signal,
        headers: {
          authorization: `Bearer ${who.environmentKey}`,
          "anthropic-beta": "managed-agents-2026-04-01",
          "anthropic-version": "2023-06-01",
          "anthropic-worker-id": who.workerId,
        },
      });
      const text = await body.text();
      return { status: statusCode, body: text === "" ? undefined : (JSON.parse(text) as unknown) };
    } catch {
      return undefined;
    }
  }
}
