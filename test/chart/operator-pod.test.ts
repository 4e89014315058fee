import { expect, test } from "vitest";
import { refusal, render } from "../support/chart.ts";

const NAMESPACE = "berth-system";

test("a probe with another handler replaces the chart's handler and keeps its times", async () => {
  const exec = { command: ["true"] };
  const { container } = await render(NAMESPACE, {
    livenessProbe: { exec },
    readinessProbe: { httpGet: { path: "/elsewhere" }, periodSeconds: 1 },
  });
  expect(container.livenessProbe).toEqual({
    exec,
    initialDelaySeconds: 10,
    periodSeconds: 10,
    timeoutSeconds: 5,
    failureThreshold: 6,
  });
  expect(container.readinessProbe).toMatchObject({ httpGet: { path: "/elsewhere", port: "health" }, periodSeconds: 1 });
});

test("a parent's registry may end with a slash", async () => {
  const { container } = await render(NAMESPACE, { global: { imageRegistry: "mirror.example/all/" } });
  expect(container.image).toMatch(/^mirror\.example\/all\/berth:/);
});

test("the port of a disabled server may be used by another", async () => {
  const { container } = await render(NAMESPACE, {
    metrics: { enabled: false, port: 8081 },
    webhook: { enabled: true, secret: "webhooks", port: 8080 },
  });
  expect(container.ports).toEqual([
    { name: "health", containerPort: 8081 },
    { name: "webhook", containerPort: 8080 },
  ]);
  expect(await refusal({ webhook: { enabled: true, secret: "webhooks", port: 8080 } })).toMatch(
    /webhook.port and metrics.port are both 8080; use two ports/,
  );
});
