import { createHmac, randomBytes } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../src/core/clock.ts";
import { newId } from "./ids.ts";
import type { SessionEvent } from "./session.ts";

const SECRET_PREFIX = "whsec_";
/** As the platform's. */
const SECRET_BYTES = 32;
const SECOND_MS = 1_000;
const ANSWER_WITHIN_MS = 5_000;
/** Deliveries that were not taken are sent once more. */
const ATTEMPTS = 2;
const RETRY_MS = 1_000;
const KEPT = 1_000;

/** What the platform calls the events of a session's stream in its webhooks. Others have none. */
const WEBHOOK_TYPES: Readonly<Record<string, string>> = {
  "session.status_running": "session.status_run_started",
  "session.status_idle": "session.status_idled",
  "session.status_terminated": "session.status_terminated",
  "session.deleted": "session.deleted",
};

/** Where deliveries go. */
export const webhookSchema = z.strictObject({
  url: z.url({ protocol: /^https?$/ }),
  /** `whsec_...` */
  secret: z.string().startsWith(SECRET_PREFIX),
  /** Sends each so often: the platform may do so, too. */
  copies: z.int().min(1).default(1),
  /** Types that are sent; all unless given. */
  types: z.array(z.string()).optional(),
});

export type WebhookInput = z.input<typeof webhookSchema>;

/** A delivery and how it was answered. */
export interface DeliveryRecord {
  readonly id: string;
  readonly type: string;
  /** What it is about: a session, in most cases. */
  readonly about: string;
  /** 0: no answer. */
  readonly status: number;
}

/** A secret as the platform gives one for each endpoint. */
export function newWebhookSecret(): string {
  return SECRET_PREFIX + randomBytes(SECRET_BYTES).toString("base64");
}

/** The headers that sign a body. */
export function signedHeaders(secret: string, delivery: { id: string; seconds: number; body: string }) {
  const { id, seconds, body } = delivery;
  const key = Buffer.from(secret.slice(SECRET_PREFIX.length), "base64");
  const signature = createHmac("sha256", key).update(`${id}.${seconds}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": String(seconds), "webhook-signature": `v1,${signature}` };
}

/** Sends webhooks as the platform does: signed, at least once, in no order, with ids in the place of objects. */
export class Webhooks {
  readonly #clock: Clock;
  readonly #organizationId = newId("org");
  readonly #ending = new AbortController();
  readonly #onDelivery: (record: DeliveryRecord) => void;
  readonly #records: DeliveryRecord[] = [];
  #to: z.output<typeof webhookSchema> | undefined;

  constructor(clock: Clock, onDelivery: (record: DeliveryRecord) => void) {
    this.#clock = clock;
    this.#onDelivery = onDelivery;
  }

  /** Sends from now on, or no more. @throws {ZodError} */
  sendTo(input: WebhookInput | undefined): void {
    this.#to = input && webhookSchema.parse(input);
  }

  /** The newest, oldest first. */
  get records(): readonly DeliveryRecord[] {
    return this.#records;
  }

  close(): void {
    this.#ending.abort();
  }

  sessionChanged(sessionId: string, event: SessionEvent, workspaceId: string | undefined): void {
    const type = WEBHOOK_TYPES[event.type];
    if (type !== undefined) this.send(type, sessionId, workspaceId);
  }

  /** Sends one event about something. */
  send(type: string, id: string, workspaceId = "wrkspc_simulated"): void {
    const to = this.#to;
    if (!to || !(to.types?.includes(type) ?? true)) return;
    const nowMs = this.#clock.now();
    const body = JSON.stringify({
      type: "event",
      id: newId("event"),
      created_at: new Date(nowMs).toISOString(),
      data: { type, id, organization_id: this.#organizationId, workspace_id: workspaceId },
    });
    const messageId = newId("msg");
    for (let copy = 0; copy < to.copies; copy += 1) {
      void this.#deliver(to, { id: messageId, body }).then((status) =>
        this.#note({ id: messageId, type, about: id, status }),
      );
    }
  }

  async #deliver(to: z.output<typeof webhookSchema>, { id, body }: { id: string; body: string }): Promise<number> {
    let status = 0;
    for (let attempt = 1; attempt <= ATTEMPTS && !this.#ending.signal.aborted; attempt += 1) {
      const seconds = Math.floor(this.#clock.now() / SECOND_MS);
      try {
        const answer = await fetch(to.url, {
          method: "POST",
          headers: { "content-type": "application/json", ...signedHeaders(to.secret, { id, seconds, body }) },
          body,
          // What the platform does not follow is a failure.
          redirect: "manual",
          signal: AbortSignal.any([this.#ending.signal, AbortSignal.timeout(ANSWER_WITHIN_MS)]),
        });
        await answer.body?.cancel();
        status = answer.status;
        if (answer.ok) return status;
      } catch {
        status = 0;
      }
      if (attempt < ATTEMPTS) await pause(this.#clock, this.#ending.signal);
    }
    return status;
  }

  #note(record: DeliveryRecord): void {
    this.#records.push(record);
    if (this.#records.length > KEPT) this.#records.shift();
    this.#onDelivery(record);
  }
}

function pause(clock: Clock, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = clock.setTimer(resolve, RETRY_MS);
    signal.addEventListener(
      "abort",
      () => {
        timer.cancel();
        resolve();
      },
      { once: true },
    );
  });
}
