import { describe, expect, test } from "vitest";
import { ANNOTATION_NEEDS } from "../../src/api/names.ts";
import type { Pod } from "../../src/kube/resource.ts";
import { cachedPod } from "../../src/pods/cached-pod.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { freePodOf } from "../../src/pool/free-pods.ts";
import { parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

const POLICY = { capabilities: ["NET_ADMIN"] };

/** A Pod as it is rendered and then kept in a cache. */
function podOf(add: readonly string[], annotations: Record<string, string> = {}): Pod {
  const containers = [{ name: "worker", image: "worker:1", securityContext: { capabilities: { add } } }];
  const made = sessionTemplate(parsed(stored(sessionsSpec({ template: podTemplate({ containers }) })))).render("p");
  return cachedPod({
    ...made,
    metadata: { ...made.metadata, annotations: { ...made.metadata.annotations, ...annotations } },
  });
}

describe("a free Pod", () => {
  test.each<[string, Pod, boolean]>([
    ["that asked for nothing may be claimed", podOf([]), false],
    ["that asked for what is allowed may be claimed", podOf(["NET_ADMIN"]), false],
    ["that asked for something else may not", podOf(["NET_ADMIN", "SYS_ADMIN"]), true],
    ["that asked for what nobody knows may not", podOf([], { [ANNOTATION_NEEDS]: '["teleport"]' }), true],
    ["whose word cannot be read may not", podOf([], { [ANNOTATION_NEEDS]: "all" }), true],
    ["whose word is no list may not", podOf([], { [ANNOTATION_NEEDS]: "{}" }), true],
    ["that does not say may not", podOf([], { [ANNOTATION_NEEDS]: "null" }), true],
  ])("%s", (_what, pod, forbidden) => {
    expect(freePodOf(pod, "stays", POLICY)).toMatchObject({ forbidden });
  });
});
