import { expect, test } from "vitest";
import { isSessionPodOf } from "../../src/pods/own-pods.ts";
import { pod } from "./pods.ts";

const ENVIRONMENT = { name: "research", uid: "env-uid" };
const LABELS = { "berth.dev/role": "session", "berth.dev/environment": "research" };
const owners = (uid: string, controller = true) => [
  { apiVersion: "berth.dev/v1alpha1", kind: "Environment", name: "research", uid, controller },
];

test.each([
  ["made by Berth", { labels: LABELS, ownerReferences: owners("env-uid") }, true],
  ["made by Berth and lost its labels", { labels: {}, ownerReferences: owners("env-uid") }, true],
  ["an orphan with the labels", { labels: LABELS }, true],
  ["an orphan without the labels", { labels: {} }, false],
  ["an orphan of another Environment", { labels: { ...LABELS, "berth.dev/environment": "other" } }, false],
  ["an orphan that is a worker", { labels: { ...LABELS, "berth.dev/role": "worker" } }, false],
  ["controlled by another object, with the labels", { labels: LABELS, ownerReferences: owners("other-uid") }, false],
  [
    "owned but not controlled by another object, with the labels",
    { labels: LABELS, ownerReferences: owners("other-uid", false) },
    true,
  ],
])("judges a Pod that is %s", (_what, metadata, isOurs) => {
  expect(isSessionPodOf(pod({}, { metadata }), ENVIRONMENT)).toBe(isOurs);
});
