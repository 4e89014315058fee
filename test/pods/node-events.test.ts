import { describe, expect, test } from "vitest";
import type { KubeEvent, Pod } from "../../src/kube/resource.ts";
import { complaintOf, steadyWords } from "../../src/pods/node-events.ts";

const UID = "0c8c4a2e-7a52-4c5b-9a5d-6f3a4f8f1c11";
const POD: Pod = {
  metadata: { name: "berth-research-6vd4nqhz", namespace: "agents", uid: UID },
  spec: { containers: [{ name: "worker" }] },
};

const START_MS = Date.UTC(2030, 0, 1);
const SECOND = 1_000;

function event(reason: string, message: string, atSeconds: number, more: Partial<KubeEvent> = {}): KubeEvent {
  return {
    metadata: { name: `${reason}.${atSeconds}` },
    involvedObject: { kind: "Pod", uid: UID },
    type: "Warning",
    reason,
    message,
    source: { component: "kubelet", host: "node-1" },
    lastTimestamp: new Date(START_MS + atSeconds * SECOND).toISOString(),
    ...more,
  };
}

const normal = (reason: string, atSeconds: number, more: Partial<KubeEvent> = {}) =>
  event(reason, "", atSeconds, { type: "Normal", ...more });

const missing = (name: string, atSeconds: number) =>
  event("FailedMount", `MountVolume.SetUp failed for volume "${name}" : configmap "${name}" not found`, atSeconds);

const SANDBOX =
  "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to generate sandbox container spec options: " +
  "failed to generate user string: user group is specified without user";

describe("a node's complaint", () => {
  test("is its last warning", () => {
    const events = [missing("mine", 5), event("FailedCreatePodSandBox", SANDBOX, 9)];
    expect(complaintOf(events, POD, null)).toEqual({ reason: "FailedCreatePodSandBox", message: SANDBOX });
    expect(complaintOf([], POD, null)).toBeNull();
  });

  test("stays the previous one while the node reports several in turn", () => {
    const before = complaintOf([missing("a", 5)], POD, null);
    expect(complaintOf([missing("a", 5), missing("b", 60)], POD, before)).toEqual(before);
    const later = complaintOf([missing("a", 5), missing("b", 200)], POD, before);
    expect(later?.message).toContain('configmap "b" not found');
  });

  test("is the cause, or the summary of the wait for volumes if no cause is given", () => {
    const summary = event(
      "FailedMount",
      "Unable to attach or mount volumes: unmounted volumes=[mine], unattached volumes=[x mine], failed to process volumes=[]: timed out waiting for the condition",
      90,
    );
    expect(complaintOf([missing("mine", 30), summary], POD, null)?.message).toContain('configmap "mine" not found');
    expect(complaintOf([summary], POD, null)?.message).toBe(
      "Unable to attach or mount volumes: unmounted volumes=[mine]: timed out waiting for the condition",
    );
  });

  test.each(["Pulling", "Pulled", "Created", "Started"])("ends once the Pod proceeds: %s", (reason) => {
    expect(complaintOf([missing("mine", 5), normal(reason, 6)], POD, null)).toBeNull();
    expect(complaintOf([missing("mine", 5), normal(reason, 4)], POD, null)).not.toBeNull();
  });

  test("ends for a successful attachment, which ends no other complaint", () => {
    const attacher = { source: { component: "attachdetach-controller" } };
    const failed = event("FailedAttachVolume", "Multi-Attach error for volume", 5, attacher);
    expect(complaintOf([failed], POD, null)?.reason).toBe("FailedAttachVolume");
    expect(complaintOf([failed, normal("SuccessfulAttachVolume", 6, attacher)], POD, null)).toBeNull();
    const both = [missing("mine", 5), normal("SuccessfulAttachVolume", 6, attacher)];
    expect(complaintOf(both, POD, null)?.reason).toBe("FailedMount");
  });

  test.each(["DNSConfigForming", "FailedToRetrieveImagePullSecret", "FailedScheduling", "Unhealthy", "BackOff"])(
    "ignores warnings that block no Pod or that its status reports: %s",
    (reason) => {
      expect(complaintOf([event(reason, "some words", 5)], POD, null)).toBeNull();
    },
  );

  test("ignores warnings of other components", () => {
    const audit = event("PolicyViolation", "policy p: no limits", 5, { source: { component: "kyverno-admission" } });
    expect(complaintOf([audit, event("FailedMount", "x", 5, { source: {} })], POD, null)).toBeNull();
  });

  test("is also read from Events of events.k8s.io, which have times and sender in other fields", () => {
    const at = (seconds: number) => new Date(START_MS + seconds * SECOND).toISOString();
    const fresh = { lastTimestamp: null, source: {}, reportingComponent: "kubelet" };
    const old = event("FailedMount", "old", 0, { ...fresh, eventTime: at(1) });
    const counted = event("NetworkNotReady", "network is not ready", 0, {
      ...fresh,
      eventTime: at(0),
      series: { count: 3, lastObservedTime: at(200) },
    });
    expect(complaintOf([old, counted], POD, null)?.reason).toBe("NetworkNotReady");
    const broken = event("FailedMount", "no time at all", 0, { lastTimestamp: "yesterday" });
    expect(complaintOf([broken], POD, null)?.message).toBe("no time at all");
  });
});

describe("the message of one fault", () => {
  const sandbox = (id: string, netns: string, port: number, seconds: string) =>
    `Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "${id}": ` +
    `plugin type="calico" failed (add): netns /var/run/netns/cni-${netns}: read tcp 10.1.2.3:${port}->10.96.0.1:443: timeout after ${seconds}`;

  test.each([
    [
      "is stable across ids, ports and times of a network plug-in",
      sandbox("a".repeat(31) + "1".repeat(33), "0c8c4a2e-7a52-4c5b-9a5d-6f3a4f8f1c12", 50_001, "1.204s"),
      sandbox("b".repeat(31) + "2".repeat(33), "1c8c4a2e-7a52-4c5b-9a5d-6f3a4f8f1c13", 50_002, "2.1s"),
    ],
    ["is stable across a summary of many Events", SANDBOX, `(combined from similar events): ${SANDBOX}`],
    [
      "is stable across a token's volume",
      'MountVolume.SetUp failed for volume "kube-api-access-7x2lp" : failed',
      'MountVolume.SetUp failed for volume "kube-api-access-bb4dq" : failed',
    ],
    [
      "is stable across the time of the next try",
      "No retries permitted until 2026-11-25 21:40:11.123456789 +0000 UTC m=+123.456 (durationBeforeRetry 1.5s)",
      "No retries permitted until 2026-11-25 21:42:13.987654321 +0000 UTC m=+245.4 (durationBeforeRetry 3.2s)",
    ],
  ])("%s", (_what, first, second) => {
    expect(steadyWords(second, POD)).toBe(steadyWords(first, POD));
  });

  test("is the same for each Pod", () => {
    const words = ({ metadata: { name, namespace, uid } }: Pod) =>
      `pod ${name}_${namespace}(${uid}): ${namespace}/${name}: secret "${name}" of ${uid}`;
    const other: Pod = { ...POD, metadata: { name: "berth-research-2xk8b7qc", namespace: "agents", uid: "1" } };
    expect(steadyWords(words(POD), POD)).toBe('pod it: it: secret "it" of it');
    expect(steadyWords(words(other), other)).toBe(steadyWords(words(POD), POD));
  });

  test("keeps what names the cause", () => {
    for (const words of [SANDBOX, 'configmap "deadbeef" not found', "image:1.2.3 at 10.0.0.1:443", "within 30s"]) {
      expect(steadyWords(words, POD)).toBe(words);
    }
  });

  test("is cut if it is long", () => {
    expect(steadyWords("word ".repeat(1_000), POD)).toHaveLength(500);
  });

  test("is read only from the beginning, since anyone may write an Event of a megabyte", () => {
    expect(steadyWords(`fails${" ".repeat(10_000)}so far`, POD)).toBe("fails");
    expect(steadyWords(`fails${", unattached volumes=[".repeat(40_000)}`, POD)).toHaveLength(500);
  });
});
