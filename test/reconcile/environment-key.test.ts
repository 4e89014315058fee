import { expect, test } from "vitest";
import { readEnvironmentKey } from "../../src/reconcile/key-keeper.ts";
import { FakeKube, noAnswer, notFound, refusal } from "./fake-kube.ts";

const REF = { name: "research-key", key: "environment-key" };
const KEY = "sk-ant-oat01-example";

function secretOf(data: Record<string, string> | undefined): FakeKube {
  const encoded = data && Object.fromEntries(Object.entries(data).map(([name, value]) => [name, btoa(value)]));
  return new FakeKube(() => ({ metadata: { name: REF.name, uid: "u1", resourceVersion: "7" }, data: encoded }));
}

test.each([
  ["as it is", KEY],
  ["with the line break that --from-file leaves", `${KEY}\n`],
  ["with spaces around it", `  ${KEY}\r\n`],
])("reads a key %s, by one GET of the named Secret", async (_how, value) => {
  const kube = secretOf({ "environment-key": value, other: "x" });
  expect(await readEnvironmentKey(kube.client, "agents", REF)).toEqual({ ok: true, key: KEY, version: "u1/7" });
  expect(kube.calls).toMatchObject([{ verb: "get", plural: "secrets", ref: { namespace: "agents", name: REF.name } }]);
});

test.each<[string, Record<string, string> | undefined, string, string]>([
  [
    "lacks the key",
    { "api-key": "x", zone: "y" },
    "KeyMissing",
    "Secret research-key has no key environment-key: add the key, or fix spec.api.keySecretRef.key",
  ],
  [
    "has no data",
    undefined,
    "KeyMissing",
    "Secret research-key has no key environment-key: add the key, or fix spec.api.keySecretRef.key",
  ],
  [
    "holds an empty key",
    { "environment-key": " \n" },
    "KeyEmpty",
    "key environment-key of Secret research-key is empty: put the environment key there",
  ],
  [
    "holds more than a key",
    { "environment-key": `ENVIRONMENT_KEY=${KEY}\nOTHER=1` },
    "KeyEmpty",
    "key environment-key of Secret research-key holds spaces, line breaks or letters that no key has: put the environment key there and nothing else",
  ],
])("reports a Secret that %s: %s", async (_how, data, reason, message) => {
  const reading = await readEnvironmentKey(secretOf(data).client, "agents", REF);
  expect(reading).toEqual({ ok: false, lasting: true, verdict: { reason, message } });
  expect(JSON.stringify(reading)).not.toContain(KEY);
});

test("never names another key of the Secret", async () => {
  const reading = await readEnvironmentKey(secretOf({ "db-password": "x" }).client, "agents", REF);
  expect(JSON.stringify(reading)).not.toContain("db-password");
});

test("reports a missing Secret as lasting, with its name, the namespace and the field", async () => {
  const kube = new FakeKube(() => notFound("secrets", REF.name));
  expect(await readEnvironmentKey(kube.client, "agents", REF)).toEqual({
    ok: false,
    lasting: true,
    verdict: {
      reason: "KeySecretMissing",
      message: "Secret research-key is not in namespace agents: create it, or mend spec.api.keySecretRef.name",
    },
  });
});

test.each([
  [
    "no permission to read it",
    refusal(403, "Forbidden", 'get secrets agents/research-key: secrets "research-key" is forbidden: User "op" cannot'),
    /^Secret research-key could not be read: give the operator permission to get Secrets in namespace agents \(get secrets/,
  ],
  [
    "no answer",
    noAnswer("get secrets agents/research-key"),
    /^Secret research-key could not be read: it is tried again/,
  ],
  [
    "a proxy's 404",
    refusal(404, "", "get secrets agents/research-key: HTTP 404, not an answer of the API server"),
    /it is tried again \(get secrets/,
  ],
  ["an error of our own", new TypeError("odd"), /odd/],
])("keeps the verdict open after %s", async (_how, error, words) => {
  const reading = await readEnvironmentKey(new FakeKube(() => error).client, "agents", REF);
  expect(reading).toMatchObject({ ok: false, lasting: false, verdict: { reason: "KeySecretUnreadable" } });
  expect(reading.ok ? "" : reading.verdict.message).toMatch(words);
});
