/** A context of the session loops on fakes, and the Secret of a claim as the API server returns it. */
import { KEY_ACKNOWLEDGED_AT, KEY_WORK_SECRET } from "../../src/api/names.ts";
import { NO_POINTS } from "../../src/core/points.ts";
import { Slots } from "../../src/core/slots.ts";
import { DEFAULT_TIMING } from "../../src/core/timing.ts";
import { KubeApiError } from "../../src/kube/errors.ts";
import type { Secret } from "../../src/kube/resource.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { createMetrics } from "../../src/observe/metrics.ts";
import type { SessionContext } from "../../src/protocol/context.ts";
import { type Journal, renderJournal } from "../../src/protocol/journal.ts";
import { contextOf, JOURNAL } from "../protocol/claims.ts";
import { VirtualClock } from "../support/virtual-clock.ts";

/** The owner reference of the Pods and Secrets of `fakeContext`'s Environment. */
export const OWNER = {
  apiVersion: "berth.dev/v1alpha1",
  kind: "Environment",
  name: "research",
  uid: "env-uid",
  controller: true,
};

/** The context of one part of the session loops, on fakes. `more` replaces defaults and adds members that have none. */
export function fakeContext(more: Partial<Record<keyof SessionContext, unknown>> = {}): SessionContext {
  return contextOf({
    namespace: "agents",
    name: "research",
    uid: "env-uid",
    clock: new VirtualClock(),
    points: NO_POINTS,
    random: () => 0.5,
    timing: DEFAULT_TIMING,
    logger: silentLogger,
    metrics: createMetrics(),
    labels: { namespace: "agents", environment: "research" },
    guard: () => {},
    servingSinceMs: 0,
    ...more,
  } as unknown as Parameters<typeof contextOf>[0]);
}

/** Slots for heartbeats, as a Work API client has them. */
export const BEATS = new Slots(1);

const base64 = (text: string) => Buffer.from(text).toString("base64");

/** The Secret of a claim as the API server returns it. */
export function claimSecret(journal: Partial<Journal> = {}, metadata: Partial<Secret["metadata"]> = {}): Secret {
  const whole = { ...JOURNAL, ...journal };
  const where = { name: "berth-research-x", namespace: "agents", environment: "research" };
  const { stringData = {}, ...secret } = renderJournal(where, whole, "secret");
  const opening = whole.opened
    ? { [KEY_WORK_SECRET]: base64("secret"), [KEY_ACKNOWLEDGED_AT]: base64(whole.acknowledgedAt ?? "") }
    : {};
  return {
    ...secret,
    metadata: { ...secret.metadata, uid: "secret-uid", resourceVersion: "7", ...metadata },
    data: { ...Object.fromEntries(Object.entries(stringData).map(([key, text]) => [key, base64(text)])), ...opening },
  };
}

/** A write without an answer: it may have taken effect. */
export const noAnswer = () => new KubeApiError("no answer", { status: 0, maybeApplied: true });
