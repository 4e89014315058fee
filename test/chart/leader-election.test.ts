import { expect, test } from "vitest";
import { refusal, render, type Values } from "../support/chart.ts";

const SWITCHED_OFF = /switches leader election off, and a rolling update runs two operators for a while: leave it out/;
const NAMESPACE =
  /(--leader-elect-namespace|BERTH_LEADER_ELECT_NAMESPACE): leave it out, the chart gives rights on Leases in the release's namespace alone/;

test.each<[string, Values, RegExp]>([
  ["a switch", { extraArgs: ["--no-leader-elect"] }, SWITCHED_OFF],
  ["a value", { extraArgs: ["--log=x", "--leader-elect=false"] }, SWITCHED_OFF],
  ["a value in a word of its own", { extraArgs: ["--leader-elect", "false"] }, SWITCHED_OFF],
  ["a variable", { extraEnv: [{ name: "BERTH_LEADER_ELECT", value: "false" }] }, SWITCHED_OFF],
  ["Leases elsewhere", { extraArgs: ["--leader-elect-namespace=x"] }, NAMESPACE],
  ["Leases elsewhere, in two words", { extraArgs: ["--leader-elect-namespace", "x"] }, NAMESPACE],
  ["Leases elsewhere, by a variable", { extraEnv: [{ name: "BERTH_LEADER_ELECT_NAMESPACE", value: "x" }] }, NAMESPACE],
])("the chart refuses to do without leader election: %s", async (_name, values, message) => {
  expect(await refusal(values)).toMatch(message);
});

test("what leaves leader election on is passed on", async () => {
  const extraArgs = ["--leader-elect", "--leader-elect=true"];
  const extraEnv = [{ name: "BERTH_LEADER_ELECT", value: "true" }];
  const { container } = await render("berth-system", { extraArgs, extraEnv });
  expect(container.args.slice(-2)).toEqual(extraArgs);
  expect(container.env).toEqual(extraEnv);
});
