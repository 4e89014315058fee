import {
  API_VERSION,
  KEY_ACKNOWLEDGED_AT,
  KEY_SESSION_ID,
  KEY_WORK_ID,
  KEY_WORK_SECRET,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_ROLE,
  OWN_LABELS,
  toLabelValue,
} from "../api/names.ts";
import { Shared } from "../core/shared.ts";
import type { Secret } from "../kube/resource.ts";

/**
 * The Secret of a slot is the record of a claim, and the lock of the Pod of the same name. It must live until the item
 * is settled, so it has no owner reference; the Environment's finalizer makes sure that it is deleted. Every patch and
 * delete carries its resourceVersion, so a late request of a dead operator changes nothing.
 */
export const CLAIM_SECRET_TYPE = "berth.dev/claim";

/** The purpose of a claimed slot. */
export type SlotUse =
  /** To run a session in the Pod of the same name. */
  | "session"
  /** To stop an item that came without its credential; there is no Pod. */
  | "refusal"
  /** To stop an item whose line to a waiting shell or program would be too long; there is no Pod. */
  | "too-long"
  /** To stop an item that ran as often as one may whose stops are answered with 409; there is no Pod. */
  | "stop"
  /** To delete the parked or sleeping Pod of the same name. */
  | "removal";

/**
 * Who sends the item's heartbeats: the program in the container, or the operator. Fixed with the claim, since a later
 * change of the spec doesn't change a program that already runs.
 */
export type LeaseKind = "Worker" | "Operator";
export const KEY_USE = "use";
const KEY_WHY = "why";
const KEY_LEASE = "lease";
const KEY_CREDENTIAL = "credential";
const KEY_POLLED_FROM = "polled-from";
const KEY_POLLED_UNTIL = "polled-until";
const KEY_QUEUED_AT = "queued-at";
const KEY_ENVIRONMENT_UID = "environment-uid";
const KEY_POD_UID = "pod-uid";
const KEY_CONTAINER = "container";

/** The contents of a claim's Secret. Times are RFC 3339, by the Work API's clock. */
export interface Journal {
  readonly use: SlotUse;
  /** Why the sleep of a session ends whose Pod is removed. */
  readonly why?: string | undefined;
  readonly lease: LeaseKind;
  readonly environmentUid: string;
  readonly podUid: string;
  /** The id of the turn's container. If the kubelet starts the turn again, that one is no session's. */
  readonly container?: string | undefined;
  readonly workId: string;
  readonly sessionId: string;
  /** When the item was created, by the Work API's clock; used only for latencies. */
  readonly queuedAt: string;
  /**
   * The earliest and latest time, by the server's clock, at which the poll can have been sent; in ms since the epoch.
   */
  readonly polledFromMs: number;
  readonly polledUntilMs: number;
  /** Set together with the key: the claim is ours, and its container may start. */
  readonly acknowledgedAt: string | null;
  /** True once the container's key is in the Secret. */
  readonly opened: boolean;
}

/** The label selector that lists the claim Secrets of all Environments. */
export function anyClaimSelector(): string {
  return `${LABEL_MANAGED_BY}=berth,${LABEL_ROLE}=session`;
}

/**
 * The Secret that claims a slot. `credential` is the work secret, stored under another key until the claim is opened.
 */
export function renderJournal(
  where: { name: string; namespace: string; environment: string },
  journal: Omit<Journal, "opened" | "acknowledgedAt">,
  credential: string | null,
): Secret {
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: {
      name: where.name,
      namespace: where.namespace,
      labels: {
        ...OWN_LABELS,
        [LABEL_ENVIRONMENT]: toLabelValue(where.environment),
        [LABEL_ROLE]: "session",
      },
      annotations: {
        "berth.dev/about": `Record of a claim (${API_VERSION}). Berth deletes it when the work item is settled.`,
      },
    },
    type: CLAIM_SECRET_TYPE,
    stringData: {
      [KEY_USE]: journal.use,
      ...(journal.why && { [KEY_WHY]: journal.why }),
      [KEY_LEASE]: journal.lease,
      [KEY_ENVIRONMENT_UID]: journal.environmentUid,
      [KEY_POD_UID]: journal.podUid,
      ...(journal.container && { [KEY_CONTAINER]: journal.container }),
      [KEY_WORK_ID]: journal.workId,
      [KEY_SESSION_ID]: journal.sessionId,
      [KEY_QUEUED_AT]: journal.queuedAt,
      [KEY_POLLED_FROM]: String(journal.polledFromMs),
      [KEY_POLLED_UNTIL]: String(journal.polledUntilMs),
      ...(credential === null ? {} : { [KEY_CREDENTIAL]: credential }),
    },
  };
}

/** The credential in the Secret before the opening, base64. */
export function storedCredential(secret: Secret): string {
  return secret.data?.[KEY_CREDENTIAL] ?? "";
}

/** The credential in the Secret of an opened claim, base64; null: it isn't opened. */
export function openedCredential(secret: Secret): string | null {
  return secret.data?.[KEY_WORK_SECRET] ?? null;
}

/** The Secret without credentials, for read-only use. It still shows whether the claim was opened. */
export function withoutCredential(secret: Secret): Secret {
  const { [KEY_CREDENTIAL]: _kept, ...data } = secret.data ?? {};
  return { ...secret, data: data[KEY_WORK_SECRET] === undefined ? data : { ...data, [KEY_WORK_SECRET]: "" } };
}

/** Longer than any value of these keys: ids have at most 1,024 characters. */
const MAX_LISTED = 8_192;
const LISTED = [
  ...[KEY_USE, KEY_LEASE, KEY_WORK_ID, KEY_SESSION_ID, KEY_WORK_SECRET, KEY_ACKNOWLEDGED_AT, KEY_QUEUED_AT],
  ...[KEY_POLLED_FROM, KEY_POLLED_UNTIL, KEY_ENVIRONMENT_UID, KEY_POD_UID, KEY_CONTAINER, KEY_WHY],
];

/**
 * The part of a listed Secret that is kept in memory: a record without its credential; of any other Secret, only its
 * name. Anyone can put Berth's labels on Secrets of a megabyte each, and all Environments share the operator's memory.
 */
export function listedRecord(secret: Secret): Secret {
  const { name, namespace, uid, resourceVersion, creationTimestamp, labels } = secret.metadata;
  const { [LABEL_ENVIRONMENT]: environment } = labels ?? {};
  const data = withoutCredential(secret).data ?? {};
  const known = LISTED.flatMap((key) => (data[key] === undefined ? [] : [[key, data[key]] as const]));
  const isReadable = known.every(([, value]) => value.length <= MAX_LISTED);
  return {
    metadata: {
      name,
      namespace,
      uid,
      resourceVersion,
      ...(creationTimestamp && { creationTimestamp }),
      labels: environment ? { [LABEL_ENVIRONMENT]: environment } : {},
    },
    type: secret.type,
    data: isReadable ? Object.fromEntries(known) : {},
  } as Secret;
}

/** The merge patch that opens a claim: it moves the credential to the key that the container waits for. */
export function openingPatch(
  precondition: { uid: string; resourceVersion: string },
  credential: string,
  acknowledgedAt: string,
): Record<string, unknown> {
  return {
    metadata: precondition,
    data: {
      [KEY_WORK_SECRET]: credential,
      [KEY_CREDENTIAL]: null,
      [KEY_ACKNOWLEDGED_AT]: Buffer.from(acknowledgedAt).toString("base64"),
    },
  };
}

function isUse(use: string | null): use is SlotUse {
  return use === "session" || use === "refusal" || use === "too-long" || use === "stop" || use === "removal";
}

/** Stores texts once that are equal in all claims of an Environment. */
const shared = new Shared();

/** Reads a claim's Secret; null: Berth did not write it. */
export function readJournal(secret: Secret): Journal | null {
  if (secret.type !== CLAIM_SECRET_TYPE) return null;
  const text = (key: string) => {
    const value = secret.data?.[key];
    return value === undefined ? null : Buffer.from(value, "base64").toString("utf8");
  };
  const use = text(KEY_USE);
  const workId = text(KEY_WORK_ID);
  if (workId === null || !isUse(use)) return null;
  return {
    use,
    lease: text(KEY_LEASE) === "Operator" ? "Operator" : "Worker",
    workId,
    environmentUid: shared.text(text(KEY_ENVIRONMENT_UID) ?? ""),
    podUid: text(KEY_POD_UID) ?? "",
    ...(use === "removal" && { why: text(KEY_WHY) ?? undefined }),
    container: text(KEY_CONTAINER) ?? undefined,
    sessionId: text(KEY_SESSION_ID) ?? "",
    queuedAt: text(KEY_QUEUED_AT) ?? "",
    polledFromMs: Number.parseInt(text(KEY_POLLED_FROM) ?? "", 10),
    polledUntilMs: Number.parseInt(text(KEY_POLLED_UNTIL) ?? "", 10),
    acknowledgedAt: text(KEY_ACKNOWLEDGED_AT),
    opened: secret.data?.[KEY_WORK_SECRET] !== undefined,
  };
}
