import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { readSettings } from "./settings.ts";

const RUN = fileURLToPath(new URL("../run.ts", import.meta.url));

test("requires KUBECONFIG with --use-cluster", () => {
  const { KUBECONFIG, ...env } = process.env;
  const { status, stderr } = spawnSync(process.execPath, [RUN, "--use-cluster"], { env, encoding: "utf8" });
  expect({ KUBECONFIG, status, stderr }).toMatchObject({ status: 2, stderr: expect.stringContaining("KUBECONFIG") });
});

test("names the images as they are built, or as the flags say", () => {
  expect(readSettings({}).images).toMatchObject({
    operator: "localhost/berth:e2e",
    simulator: "localhost/berth-simulator:e2e",
  });
  const env = { BERTH_E2E_IMAGE_PREFIX: "registry.example/team/", BERTH_E2E_IMAGE_TAG: "v1" };
  expect(readSettings(env).images.typescript).toBe("registry.example/team/berth-worker-typescript:v1");
});

test("creates its own cluster by default, and skips what it cannot do, except in CI", () => {
  expect(readSettings({ KUBECONFIG: "/k" })).toMatchObject({ useCluster: false, strict: false });
  expect(readSettings({ BERTH_E2E_USE_CLUSTER: "true", CI: "true" })).toMatchObject({ useCluster: true, strict: true });
});
