import { createHmac, randomBytes } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../src/core/clock.ts";
import { newId } from "./ids.ts";
import type { SessionEvent } from "./session.ts";

const SECRET_PREFIX = "whsec_";
/** The length that the platform uses. */
const SECRET_BYTES = 32;
const SECOND_MS = 1_000;
const ANSWER_WITHIN_MS = 5_000;
/** The simulator sends a delivery again if the receiver didn't accept it. */
const ATTEMPTS = 2;
const RETRY_MS = 1_000;
const KEPT = 1_000;

/** The webhook types of the platform for the events of a session's stream. Other events have none. */
const WEBHOOK_TYPES: Readonly<Record<string, string>> = {
  "session.status_running": "session.status_run_started",
  "session.status_idle": "session.status_idled",
  "session.status_terminated": "session.status_terminated",
  "session.deleted": "session.deleted",
};

/** Where and how webhooks are sent. */
export const webhookSchema = z.strictObject({
  url: z.url({ protocol: /^https?$/ }),
  /** `whsec_...` */
  secret: z.string().startsWith(SECRET_PREFIX),
  /** Sends each webhook this number of times, because the platform may also deliver it more than once. */
  copies: z.int().min(1).default(1),
  /** The types to send. Defaults to all types. */
  types: z.array(z.string()).optional(),
});

export type WebhookInput = z.input<typeof webhookSchema>;

/** A delivery and its answer. */
export interface DeliveryRecord {
  readonly id: string;
  readonly type: string;
  /** The id of the object that it's about, usually a session. */
  readonly about: string;
  /** 0: no answer. */
  readonly status: number;
}

/** Returns a secret like the one that the platform issues for each endpoint. */
export function newWebhookSecret(): string {
  return SECRET_PREFIX + randomBytes(SECRET_BYTES).toString("base64");
}

/** Returns the headers that sign a body. */
export function signedHeaders(secret: string, delivery: { id: string; seconds: number; body: string }) {
  const { id, seconds, body } = delivery;
  const key = Buffer.from(secret.slice(SECRET_PREFIX.length), "base64");
  const signature = createHmac("sha256", key).update(`${id}.${seconds}.${body}`).digest("base64");
  return { "webhook-id": id, "webhook-timestamp": String(seconds), "webhook-signature": `v1,${signature}` };
}

/** Sends webhooks as the platform does: signed, at least once, in no particular order, with ids instead of objects. */
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

  /** Sends webhooks there from now on, or none if undefined. @throws {ZodError} */
  sendTo(input: WebhookInput | undefined): void {
    this.#to = input && webhookSchema.parse(input);
  }

  /** The newest deliveries, oldest first. */
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

  /** Sends an event about an object. */
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
          // The platform doesn't follow redirects and counts them as failures.
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
