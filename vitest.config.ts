import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/support/longest-first.ts";
import { oldestKubernetes } from "./test/support/oldest-kubernetes.ts";

/** Of `expect.poll`: what it looks at may be another process, which starts late on a busy machine. Vitest's own is a second. */
const PATIENT = { poll: { timeout: 10_000 } };

/** What the projects with a control plane have in common. */
const integration = {
  testTimeout: 120_000,
  hookTimeout: 120_000,
  // Files wait for half of their time: three of them keep two cores three quarters busy. In CI, other tests run beside them.
  maxWorkers: process.env["CI"] === "true" ? 2 : 3,
  expect: PATIENT,
};

/** What the end-to-end projects have in common: one cluster, which the first of them starts. */
const e2e = {
  globalSetup: ["test/e2e/support/setup.ts"],
  setupFiles: ["test/e2e/support/skip.ts"],
  // Real containers, leases of 90 s and real timers, on a machine that may be busy: above the bound of a wait.
  testTimeout: 600_000,
  hookTimeout: 600_000,
  expect: PATIENT,
};

/** Sessions whose Pods gVisor isolates. */
const gvisor = {
  test: {
    ...e2e,
    name: "e2e-gvisor",
    include: ["test/e2e/shared/**/*.test.ts"],
    // gVisor's Pods have no user namespace of Linux.
    exclude: ["test/e2e/shared/user-namespace.test.ts"],
    env: { BERTH_E2E_ISOLATION: "gVisor" },
    maxWorkers: 3,
    sequence: { groupOrder: 3 },
  },
};

// - `unit` needs only Node.
// - `integration`, and `faults`, which attacks the promises, need the control plane of testbed/cluster.
// - `oldest` is a part of `integration` on the oldest version of Kubernetes.
// - The others need a cluster with a real node. Files of `e2e` run in parallel. Then those that disturb the whole node run
//   one by one, and then the checks of everything that the others left behind.
// Projects differ in how many files they run at a time. vitest requires a separate group for each number.
export default defineConfig({
  test: {
    // Node itself runs the files, as it does outside of tests. Vite's runner looks up each import at every use, and the
    // protocol's model takes twice as long.
    experimental: { viteModuleRunner: false },
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/**/*.test.ts"],
          exclude: [
            "test/integration/**",
            "test/e2e/{shared,disturbing,last}/**",
            "test/faults/!(support)/**",
            "test/rehearsal/**",
          ],
          // Long enough for two cores that also run the end-to-end tests.
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // Vitest's own number leaves one core for itself.
          maxWorkers: availableParallelism(),
          // Each of hundreds of files would load the sources again, which takes a third of the time.
          isolate: false,
          setupFiles: ["test/support/go-last.ts"],
          sequence: { groupOrder: 0 },
          expect: PATIENT,
        },
      },
      {
        test: {
          ...integration,
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          globalSetup: ["test/support/cluster-setup.ts"],
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...integration,
          name: "oldest",
          // What versions of Kubernetes may differ in: rules of the CRD and of the chart's admission policy, defaults and
          // pruning, lists and watches, attaching, what the controllers make of Pods, and a session's life with all of
          // that.
          include: [
            "chart-install",
            "cluster",
            "crd",
            "kube-client",
            "kube-informer",
            "lease-operator",
            "pod-limits",
            "sessions-life",
            "simulated-node-attach",
            "turn-policy",
          ].map((name) => `test/integration/${name}.test.ts`),
          globalSetup: ["test/support/oldest-setup.ts"],
          env: await oldestKubernetes(),
          sequence: { groupOrder: 6 },
        },
      },
      {
        test: {
          name: "faults",
          // The message of a broken promise shows the whole history of its items.
          chaiConfig: { truncateThreshold: 0 },
          include: ["test/faults/*/**/*.test.ts"],
          exclude: ["test/faults/support/**"],
          globalSetup: ["test/support/cluster-setup.ts"],
          // Many worlds share the machine, and long runs have no fixed duration. Each wait has its own limit.
          testTimeout: 3_600_000,
          hookTimeout: 120_000,
          // A single file leaves two cores half idle.
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
          expect: PATIENT,
        },
      },
      {
        test: {
          name: "rehearsal",
          include: ["test/rehearsal/**/*.test.ts"],
          sequence: { groupOrder: 7 },
          expect: PATIENT,
        },
      },
      {
        test: {
          ...e2e,
          name: "e2e",
          include: ["test/e2e/shared/**/*.test.ts"],
          maxWorkers: 3,
          sequence: { groupOrder: 3 },
        },
      },
      // Tests of sessions whose Pods gVisor isolates.
      ...(process.env["BERTH_E2E_LONG"] ? [gvisor] : []),
      {
        test: {
          ...e2e,
          name: "e2e-disturbing",
          include: ["test/e2e/disturbing/**/*.test.ts"],
          maxWorkers: 1,
          sequence: { groupOrder: 4 },
        },
      },
      {
        test: {
          ...e2e,
          name: "e2e-last",
          include: ["test/e2e/last/**/*.test.ts"],
          maxWorkers: 1,
          sequence: { groupOrder: 5 },
        },
      },
    ],
  },
});
