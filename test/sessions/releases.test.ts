import { describe, expect, test } from "vitest";
import {
  ANNOTATION_END_REASON,
  ANNOTATION_FINISHED_AT,
  LABEL_PHASE,
  LABEL_WORK_ID,
  type PodPhaseLabel,
} from "../../src/api/names.ts";
import type { Pod } from "../../src/kube/resource.ts";
import type { SessionContext } from "../../src/sessions/context.ts";
import { MOST_RELEASES, mayRelease } from "../../src/sessions/releases.ts";
import { opened } from "./claims.ts";

const died = (name: string, reason = "OOMKilled", workId = "work_1", phase: PodPhaseLabel = "finished"): Pod => ({
  metadata: {
    name,
    labels: { [LABEL_PHASE]: phase, [LABEL_WORK_ID]: workId },
    annotations: { [ANNOTATION_END_REASON]: reason, [ANNOTATION_FINISHED_AT]: "2030-01-01T00:00:00Z" },
  },
  spec: { containers: [] },
});

function may(pods: readonly Pod[], onPodFailure = "Release"): boolean {
  const context = {
    environment: () => ({ spec: { sessions: { onPodFailure } } }),
    pods: { list: () => pods },
  } as unknown as SessionContext;
  return mayRelease(context, opened());
}

const deaths = (count: number) => Array.from({ length: count }, (_, n) => died(`pod-${n}`));

describe("whether an item may go back to the queue", () => {
  test("not under onPodFailure: Stop", () => expect(may([], "Stop")).toBe(false));

  test("so often, and no more: a session that kills its Pod each time would go round for ever", () => {
    expect(may(deaths(MOST_RELEASES - 1))).toBe(true);
    expect(may(deaths(MOST_RELEASES))).toBe(false);
  });

  test.each([
    ["of other items", died("x", "OOMKilled", "work_2")],
    ["that ended well", died("x", "Completed")],
    ["that is its own", died(opened().name)],
    ["that still run", died("x", "OOMKilled", "work_1", "assigned")],
  ])("Pods %s do not count", (_, pod) => {
    expect(may([...deaths(MOST_RELEASES - 1), pod])).toBe(true);
  });
});
