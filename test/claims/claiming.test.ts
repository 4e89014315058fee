import { describe, expect, test } from "vitest";
import { credentialFor } from "../../src/claims/claiming.ts";
import { sessionTemplate } from "../../src/pods/pod-render.ts";
import { type Json, parsed, podTemplate, sessionsSpec, stored } from "../api/environments.ts";

const podOf = (sessions: Json) =>
  sessionTemplate(parsed(stored(sessionsSpec({ template: podTemplate(), ...sessions })))).render("berth-research-x");
const BY_SECRET = podOf({});
const WITH_COMMAND = { spec: { containers: [{ name: "worker", image: "worker:1", command: ["worker"] }] } };
const BY_LINE = podOf({ template: WITH_COMMAND, parking: "Shell" });
const KEY_BY_LINE = podOf({ template: WITH_COMMAND, parking: "Shell", credential: "EnvironmentKey" });
const BY_KEY = podOf({ credential: "EnvironmentKey" });

describe("the credential of a Pod", () => {
  test.each([
    ["the item's secret", BY_SECRET, "secret", "key", "secret"],
    ["the item's secret, in the line of a waiting shell", BY_LINE, "secret", "key", "secret"],
    ["the environment key, in the line of a waiting shell", KEY_BY_LINE, "secret", "key", "key"],
    ["nothing when the item has no secret: never the key instead", BY_SECRET, "", "key", null],
    ["the environment key when the Pod was rendered for it", BY_KEY, "", "key", "key"],
    ["the environment key even if the item has a secret", BY_KEY, "secret", "key", "key"],
    ["nothing while there is no key: never the secret instead", BY_KEY, "secret", "", null],
  ])("is %s", (_, pod, secret, key, expected) => {
    expect(credentialFor({ environmentKey: () => key }, pod, { secret })).toBe(expected);
  });
});
