import {
  API_VERSION,
  KEY_ACKNOWLEDGED_AT,
  KEY_SESSION_ID,
  KEY_WORK_ID,
  KEY_WORK_SECRET,
  LABEL_ENVIRONMENT,
  LABEL_MANAGED_BY,
  LABEL_ROLE,
  toLabelValue,
} from "../api/names.ts";
import { Shared } from "../core/shared.ts";
import type { Secret } from "../kube/resource.ts";
import { isBaseUrl } from "../work/paths.ts";

/**
 * The Secret of a slot: the record of a claim, and the lock of the Pod whose name it bears. It lives until the item is
 * settled, so nothing owns it; the Environment's finalizer sees to its end. Every patch and delete of it carries its
 * resourceVersion: a late request of a dead operator changes nothing.
 */
export const CLAIM_SECRET_TYPE = "berth.dev/claim";

/** What a slot was taken for. */
export type SlotUse =
  /** To run a session in the Pod of the same name. */
  | "session"
  /** To stop an item that must not or cannot run (no credential); there is no Pod. */
  | "refusal"
  /** To delete the parked Pod of the same name. */
  | "removal";

/**
 * Who beats for the item: the program in the container, or this operator. Fixed with the claim, since a spec that changes
 * while a session runs changes nothing about its program.
 */
export type LeaseKind = "Worker" | "Operator";
export const KEY_USE = "use";
const KEY_LEASE = "lease";
const KEY_CREDENTIAL = "credential";
const KEY_POLLED_FROM = "polled-from";
const KEY_POLLED_UNTIL = "polled-until";
const KEY_API = "api";
const KEY_QUEUED_AT = "queued-at";
const KEY_ENVIRONMENT_UID = "environment-uid";
const KEY_POD_UID = "pod-uid";

/** What a claim's Secret says. Times are RFC 3339, in the Work API's time. */
export interface Journal {
  readonly use: SlotUse;
  readonly lease: LeaseKind;
  readonly environmentUid: string;
  readonly podUid: string;
  /** `spec.api.baseUrl` as the item was claimed from: it is known there, whatever the spec names later. Empty: not said. */
  readonly api: string;
  readonly workId: string;
  readonly sessionId: string;
  /** When the item was created, as the Work API says it; for latencies only. */
  readonly queuedAt: string;
  /** The server's time when the poll was sent, as early and as late as it can have been, in ms since the epoch. */
  readonly polledFromMs: number;
  readonly polledUntilMs: number;
  /** Set together with the key: the claim is ours and its container may start. */
  readonly acknowledgedAt: string | null;
  /** True once the container's key is in the Secret. */
  readonly opened: boolean;
}

/** The labels by which an Environment's claim Secrets are listed when its loops start. */
export function claimSelector(environmentName: string): string {
  return `${LABEL_MANAGED_BY}=berth,${LABEL_ENVIRONMENT}=${toLabelValue(environmentName)},${LABEL_ROLE}=session`;
}

/** The same of all Environments. */
export function anyClaimSelector(): string {
  return `${LABEL_MANAGED_BY}=berth,${LABEL_ROLE}=session`;
}

/** The Secret that takes a slot. `credential` is the work secret, kept aside until the claim is acknowledged. */
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
        [LABEL_MANAGED_BY]: "berth",
        [LABEL_ENVIRONMENT]: toLabelValue(where.environment),
        [LABEL_ROLE]: "session",
      },
      annotations: {
        "berth.dev/about": `Record of a claim (${API_VERSION}). Berth deletes it when its work item is settled.`,
      },
    },
    type: CLAIM_SECRET_TYPE,
    stringData: {
      [KEY_USE]: journal.use,
      [KEY_LEASE]: journal.lease,
      [KEY_ENVIRONMENT_UID]: journal.environmentUid,
      [KEY_POD_UID]: journal.podUid,
      [KEY_API]: journal.api,
      [KEY_WORK_ID]: journal.workId,
      [KEY_SESSION_ID]: journal.sessionId,
      [KEY_QUEUED_AT]: journal.queuedAt,
      [KEY_POLLED_FROM]: String(journal.polledFromMs),
      [KEY_POLLED_UNTIL]: String(journal.polledUntilMs),
      ...(credential === null ? {} : { [KEY_CREDENTIAL]: credential }),
    },
  };
}

/** The credential as it lies in the Secret before the opening, base64. */
export function storedCredential(secret: Secret): string {
  return secret.data?.[KEY_CREDENTIAL] ?? "";
}

/** The Secret without what a container authenticates with, for those who only look; whether it was opened is still seen. */
export function withoutCredential(secret: Secret): Secret {
  const { [KEY_CREDENTIAL]: _kept, ...data } = secret.data ?? {};
  return { ...secret, data: data[KEY_WORK_SECRET] === undefined ? data : { ...data, [KEY_WORK_SECRET]: "" } };
}

/** Longer than what any of these holds: ids have at most 1,024 characters. */
const MAX_LISTED = 8_192;
const LISTED = [
  ...[KEY_USE, KEY_LEASE, KEY_WORK_ID, KEY_SESSION_ID, KEY_WORK_SECRET, KEY_ACKNOWLEDGED_AT, KEY_API, KEY_QUEUED_AT],
  ...[KEY_POLLED_FROM, KEY_POLLED_UNTIL, KEY_ENVIRONMENT_UID, KEY_POD_UID],
];

/**
 * What is kept of a Secret in a list: a record without its credential, and of what is none no more than its name. Anybody may
 * put our labels on Secrets of their own, a megabyte each, and the operator's memory is everybody's.
 */
export function listedRecord(secret: Secret): Secret {
  const { name, namespace, uid, resourceVersion, labels } = secret.metadata;
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
      labels: environment ? { [LABEL_ENVIRONMENT]: environment } : {},
    },
    type: secret.type,
    data: isReadable ? Object.fromEntries(known) : {},
  } as Secret;
}

/** The merge patch that opens a claim: the credential becomes the key that the container waits for. */
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

/** As `spec.api.baseUrl` is bounded. */
const MAX_API = 512;

/** What all claims of an Environment say alike. */
const shared = new Shared();

/** Reads a claim's Secret; null for one that no version of Berth can have written. */
export function readJournal(secret: Secret): Journal | null {
  if (secret.type !== CLAIM_SECRET_TYPE) return null;
  const text = (key: string) => {
    const value = secret.data?.[key];
    return value === undefined ? null : Buffer.from(value, "base64").toString("utf8");
  };
  const use = text(KEY_USE);
  const workId = text(KEY_WORK_ID);
  const api = text(KEY_API) ?? "";
  // An address that no spec can have named: whoever may write Secrets may have made it up, a megabyte of it.
  if (api.length > MAX_API || (api !== "" && !isBaseUrl(api))) return null;
  if (workId === null || (use !== "session" && use !== "refusal" && use !== "removal")) return null;
  return {
    use,
    lease: text(KEY_LEASE) === "Operator" ? "Operator" : "Worker",
    workId,
    environmentUid: shared.text(text(KEY_ENVIRONMENT_UID) ?? ""),
    api: shared.text(api),
    podUid: text(KEY_POD_UID) ?? "",
    sessionId: text(KEY_SESSION_ID) ?? "",
    queuedAt: text(KEY_QUEUED_AT) ?? "",
    polledFromMs: Number.parseInt(text(KEY_POLLED_FROM) ?? "", 10),
    polledUntilMs: Number.parseInt(text(KEY_POLLED_UNTIL) ?? "", 10),
    acknowledgedAt: text(KEY_ACKNOWLEDGED_AT),
    opened: secret.data?.[KEY_WORK_SECRET] !== undefined,
  };
}
