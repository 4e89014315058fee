import { beforeEach, describe, expect, test } from "vitest";
import { announcement } from "../../demo/announcement.ts";
import { Board, type BoardEvent } from "../../demo/board.ts";
import type { DemoCluster } from "../../demo/cluster.ts";
import { BATCH, RESEARCH, type Sample } from "../../demo/sample.ts";
import { StagedEnvironment } from "../../demo/staged-environment.ts";
import type { KubeObject } from "../../src/kube/objects.ts";

let told: BoardEvent[];
let board: Board;

beforeEach(() => {
  told = [];
  board = new Board(() => 0, []);
  board.subscribe((event) => told.push(event));
});

const staged = (sample: Sample) => new StagedEnvironment(sample, `env_${sample.name}`, board);

/** An Environment as the API server returns it. */
const shown = (status: string, more: object = {}): KubeObject =>
  ({
    metadata: { name: "batch", ...more },
    status: { conditions: [{ type: "Ready", status, reason: "KeyRejected", message: "put a valid key" }] },
  }) as never;

describe("an Environment of the demo", () => {
  test("is ready according to its Ready condition, whose reason and message say why it is not", () => {
    const environment = staged(BATCH);
    expect(environment).toMatchObject({ isReady: false, obstacle: undefined });
    environment.changed(shown("False"));
    expect(environment).toMatchObject({ isReady: false, obstacle: "KeyRejected: put a valid key" });
    environment.changed(shown("True"));
    expect(environment).toMatchObject({ isReady: true, obstacle: undefined });
  });

  test("reports under its name when it stops and starts serving, once each", () => {
    const environment = staged(BATCH);
    for (const status of ["True", "False", "False", "True"]) environment.changed(shown(status));
    expect(told).toMatchObject([
      { environment: "batch", text: "does not serve: KeyRejected: put a valid key" },
      { environment: "batch", text: "serves" },
    ]);
  });

  test("reports nothing while it is being deleted", () => {
    const environment = staged(BATCH);
    environment.changed(shown("False", { deletionTimestamp: "2026-01-01T00:00:00Z" }));
    environment.changed(undefined);
    expect(told).toEqual([]);
  });

  test("has session Pods or always-on workers, depending on its sample", () => {
    expect(staged(RESEARCH).workers).toBeUndefined();
    expect(staged(RESEARCH).sessions?.counts.warm).toBe(0);
    expect(staged(BATCH).sessions).toBeUndefined();
    expect(staged(BATCH).workers?.isEmpty).toBe(true);
  });
});

describe("the announcement", () => {
  const own = {
    about: "Kubernetes v1",
    namespace: "berth-demo",
    kubectl: "npm run cluster -- kubectl",
    foreign: false,
  };
  const cluster = { ...own, kubeconfig: "/k" } as DemoCluster;
  const lines = (samples: readonly Sample[], more: Partial<DemoCluster> = {}, scripted = false) =>
    announcement(
      {
        ...{ cluster: { ...cluster, ...more }, environments: samples.map(staged) },
        ...{ metricsUrl: "http://m/metrics", consoleUrl: "http://c" },
      },
      { scripted },
    ).map((line) => line.trim());

  test("says how each Environment serves, where its manifest is, and how to inspect both", () => {
    const both = lines([RESEARCH, BATCH]);
    expect(both).toContain("research  a Pod for each session, some of them warm: demo/environments/research.yaml");
    expect(both).toContain("batch     always-on workers, scaled with the queue: demo/environments/batch.yaml");
    expect(both).toContain("npm run cluster -- kubectl get benv,deployments,pods -n berth-demo");
    expect(both).toContain("npm run cluster -- kubectl describe benv -n berth-demo research");
    expect(both).toContain("npm run cluster -- kubectl describe benv -n berth-demo batch");
    expect(both).toContain("export KUBECONFIG=/k");
    expect(both).toContain("Watch it in a browser: http://c");
  });

  test("mentions no Deployments or second Environment if there are none", () => {
    const one = lines([RESEARCH], {}, true).join("\n");
    expect(one).toContain("kubectl get benv,pods -n berth-demo");
    expect(one).toContain("workers played by the simulated node");
    expect(one).not.toMatch(/batch|deployments/);
  });

  test("prints no kubeconfig for a cluster that the demo does not own", () => {
    expect(lines([RESEARCH], { foreign: true }).join("\n")).not.toContain("KUBECONFIG");
  });
});
