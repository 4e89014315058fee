import type { KubeEvent, Pod } from "../kube/resource.ts";
import type { Problem } from "../pods/pod-state.ts";

/** Who speaks for a Pod's node. What policy engines and others warn of holds no Pod back that was admitted. */
const SPEAKERS = new Set(["kubelet", "attachdetach-controller"]);

/**
 * Warnings that hold no Pod back, or that its status tells better. kubelet warns of name servers and pull secrets at
 * each sync of a Pod that is well.
 */
const ASIDE = new Set([
  "DNSConfigForming",
  "MissingClusterDNS",
  "FailedToRetrieveImagePullSecret",
  "FailedScheduling",
  "Failed",
  "BackOff",
  "Unhealthy",
  "InspectFailed",
  "ErrImageNeverPull",
]);

/** What a node says once there is a sandbox: what it complained of before is over. */
const SANDBOX_IS_THERE = new Set(["Pulling", "Pulled", "Created", "Started"]);

/** kubelet repeats a volume's complaint no later than this (pkg/volume/util, 2 min 2 s at most); all of a round are one. */
const ROUND_MS = 130_000;

/** kubelet's summary of a wait for volumes, beside which it says what is wrong with one of them. */
const SUMMARY = /^Unable to attach or mount volumes: /;

/** A condition is read on a terminal: containerd passes on whole command outputs. */
const MAX_LENGTH = 500;

/** Anybody who may write Events may write a megabyte, and what varies is looked for again and again. */
const MAX_READ = 8 * MAX_LENGTH;

/** What differs between two Events of one fault, and what stands for it. */
const VARYING: readonly (readonly [RegExp, string])[] = [
  [/^\(combined from similar events\): /, ""],
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, "…"],
  // Ids of sandboxes and containers.
  [/\b(?=[a-f]*\d)[0-9a-f]{32,64}\b/g, "…"],
  [/\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d)?( [A-Z]{3,4})?( m=[+-][\d.]+)?/g, "…"],
  // The near end of a connection.
  [/:\d+->/g, "->"],
  [/\bkube-api-access-[a-z0-9]{5}\b/g, "kube-api-access-…"],
  [/, unattached volumes=\[[^\]]*\]/g, ""],
  [/, failed to process volumes=\[\]/g, ""],
  // How long something took, or is put off: never whole seconds alone, which are settings.
  [/\b(\d+h)?(\d+m)?\d+\.\d+(s|ms|µs)\b/g, "…"],
  [/\s+/g, " "],
];

/**
 * What keeps a Pod from getting ready in its node's words, read from its Events; null where they tell nothing that still
 * holds. The words of the same fault are the same at each reading, and for each Pod.
 * @param before what was read last: where the node complains of several things in turn, it stays with this one.
 */
export function complaintOf(events: readonly KubeEvent[], pod: Pod, before: Problem | null): Problem | null {
  const spoken = events.filter((event) => SPEAKERS.has(event.source?.component || event.reportingComponent || ""));
  const ready = latest(spoken.filter(({ reason }) => SANDBOX_IS_THERE.has(reason ?? "")));
  const attached = latest(spoken.filter(({ reason }) => reason === "SuccessfulAttachVolume"));
  const holds = spoken.filter((event) => {
    if (event.type !== "Warning" || ASIDE.has(event.reason ?? "") || seenAt(event) <= ready) return false;
    return event.reason !== "FailedAttachVolume" || seenAt(event) > attached;
  });
  const round = holds.filter((event) => seenAt(event) >= latest(holds) - ROUND_MS);
  const precise = round.filter(({ message }) => !SUMMARY.test(message ?? ""));
  const complaints = (precise.length > 0 ? precise : round)
    .sort((a, b) => seenAt(b) - seenAt(a))
    .map((event) => ({ reason: event.reason ?? "", message: steadyWords(event.message ?? "", pod) }));
  const same = complaints.find(({ reason, message }) => reason === before?.reason && message === before.message);
  return same ?? complaints[0] ?? null;
}

/** A node's sentence without what is another one for each Pod and at each try. */
export function steadyWords(message: string, { metadata }: Pod): string {
  const { name = "", namespace = "", uid = "" } = metadata;
  let words = message.slice(0, MAX_READ);
  for (const own of [`${name}_${namespace}(${uid})`, `${namespace}/${name}`, uid, name]) {
    if (own !== "" && own !== "/") words = words.replaceAll(own, "it");
  }
  for (const [varying, stead] of VARYING) words = words.replace(varying, stead);
  words = words.trim();
  return words.length > MAX_LENGTH ? `${words.slice(0, MAX_LENGTH - 1)}…` : words;
}

function latest(events: readonly KubeEvent[]): number {
  return Math.max(Number.NEGATIVE_INFINITY, ...events.map(seenAt));
}

/** When an Event was seen last, in milliseconds since the epoch; those of events.k8s.io bear no `lastTimestamp`. */
function seenAt({ lastTimestamp, series, eventTime, firstTimestamp, metadata }: KubeEvent): number {
  const { lastObservedTime } = (series ?? {}) as { lastObservedTime?: string };
  const at = Date.parse(
    String(lastTimestamp ?? lastObservedTime ?? eventTime ?? firstTimestamp ?? metadata.creationTimestamp),
  );
  return Number.isNaN(at) ? 0 : at;
}
