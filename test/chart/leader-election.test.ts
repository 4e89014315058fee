import { expect, test } from "vitest";
import { refusal, render, type Values } from "../support/chart.ts";

const SWITCHED_OFF = /turns leader election off, but two operators run during a rolling update; remove it/;
const NAMESPACE =
  /(--leader-elect-namespace|BERTH_LEADER_ELECT_NAMESPACE): the chart gives permissions for Leases only in the release's namespace; remove the flag/;

test.each<[string, Values, RegExp]>([
  ["a switch", { extraArgs: ["--no-leader-elect"] }, SWITCHED_OFF],
  ["a value", { extraArgs: ["--log=x", "--leader-elect=false"] }, SWITCHED_OFF],
  ["a value in a separate word", { extraArgs: ["--leader-elect", "false"] }, SWITCHED_OFF],
  ["a variable", { extraEnv: [{ name: "BERTH_LEADER_ELECT", value: "false" }] }, SWITCHED_OFF],
  ["Leases elsewhere", { extraArgs: ["--leader-elect-namespace=x"] }, NAMESPACE],
  ["Leases elsewhere, in two words", { extraArgs: ["--leader-elect-namespace", "x"] }, NAMESPACE],
  [
    "Leases elsewhere, in the last of two flags",
    { extraArgs: ["--leader-elect-namespace=default", "--leader-elect-namespace=x"] },
    NAMESPACE,
  ],
  ["Leases elsewhere, by a variable", { extraEnv: [{ name: "BERTH_LEADER_ELECT_NAMESPACE", value: "x" }] }, NAMESPACE],
])("the chart refuses to disable leader election: %s", async (_name, values, message) => {
  expect(await refusal(values)).toMatch(message);
});

test("arguments that keep leader election on are passed on", async () => {
  const extraArgs = ["--leader-elect", "--leader-elect=true"];
  const extraEnv = [{ name: "BERTH_LEADER_ELECT", value: "true" }];
  const { container } = await render("berth-system", { extraArgs, extraEnv });
  expect(container.args.slice(-2)).toEqual(extraArgs);
  expect(container.env).toEqual(extraEnv);
});

const elsewhere = (namespace: string): Values => ({
  extraArgs: [`--leader-elect-namespace=${namespace}`, "--leader-elect-namespace", namespace],
  extraEnv: [{ name: "BERTH_LEADER_ELECT_NAMESPACE", value: namespace }],
});

test("Leases may be in the release's namespace by name, or anywhere if the chart creates no roles", async () => {
  const own = elsewhere("berth-system");
  expect((await render("berth-system", own)).container).toMatchObject({
    args: expect.arrayContaining(own["extraArgs"] as string[]),
    env: own["extraEnv"],
  });
  const others: Values = { ...elsewhere("leases"), rbac: { create: false } };
  expect((await render("berth-system", others)).container).toMatchObject({
    args: expect.arrayContaining(others["extraArgs"] as string[]),
    env: others["extraEnv"],
  });
});

test("the release's namespace may come from the Pod", async () => {
  const fromPod = { fieldRef: { fieldPath: "metadata.namespace" } };
  const extraEnv = [{ name: "BERTH_LEADER_ELECT_NAMESPACE", valueFrom: fromPod }];
  expect((await render("berth-system", { extraEnv })).container.env).toEqual(extraEnv);
});

test("the chart also refuses to disable leader election when it creates no roles", async () => {
  const rbac = { create: false };
  expect(await refusal({ extraArgs: ["--no-leader-elect"], rbac })).toMatch(SWITCHED_OFF);
});
