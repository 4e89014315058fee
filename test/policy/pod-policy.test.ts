import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MAX_CONDITION_MESSAGE } from "../../src/api/conditions.ts";
import {
  allowsAll,
  forbiddenIn,
  needWords,
  type PodPolicy,
  parseAllowance,
  policyOf,
} from "../../src/policy/pod-policy.ts";
import { needsOf, POLICY_KEYS, POLICY_RULES } from "../../src/policy/policy-rules.ts";
import { TEMPLATE_CASES, templateOf } from "./template-cases.ts";

const FIELD = "spec.sessions.template";
const policy = (...words: string[]): PodPolicy => policyOf(words.map(parseAllowance));

describe("a policy that allows nothing", () => {
  test.each(TEMPLATE_CASES)("$name: $needs", ({ needs, field, ...parts }) => {
    const template = templateOf(parts);
    expect(needWords(template)).toEqual(needs);
    const why = forbiddenIn({}, template, FIELD).join(" ");
    if (needs.length === 0) expect(why).toBe("");
    else {
      expect(field).toBeDefined();
      expect(why).toContain(`${FIELD}.${field}`);
      for (const word of needs) expect(why).toContain(`(--allowed-in-templates ${word})`);
    }
    expect(allowsAll({}, needs)).toBe(needs.length === 0);
  });

  test("has a case for every rule", () => {
    const covered = new Set(TEMPLATE_CASES.flatMap(({ needs }) => needs).map((word) => word.split("=")[0]));
    expect(POLICY_KEYS.filter((key) => !covered.has(key))).toEqual([]);
  });
});

describe("a policy that allows a template's needs", () => {
  const possible = TEMPLATE_CASES.filter(({ needs, impossible }) => needs.length > 0 && !impossible);

  test.each(possible.filter(({ needs }) => !needs.some((word) => /=(relative|\/\/etc)$/.test(word))))(
    "accepts it: $needs ($name)",
    ({ needs, ...parts }) => {
      const allowing = policy(...needs);
      expect(forbiddenIn(allowing, templateOf(parts), FIELD)).toEqual([]);
      expect(allowsAll(allowing, needs)).toBe(true);
    },
  );

  test.each(POLICY_KEYS.filter((key) => POLICY_RULES[key].kind === "names"))("accepts all %s with a *", (key) => {
    const all = TEMPLATE_CASES.flatMap(({ needs }) => needs).filter((word) => word.startsWith(`${key}=`));
    expect(all.length).toBeGreaterThan(0);
    expect(allowsAll(policy(`${key}=*`), all)).toBe(true);
  });

  test("accepts nothing else", () => {
    const words = [...new Set(TEMPLATE_CASES.flatMap(({ needs }) => needs))];
    for (const word of possible.flatMap(({ needs }) => needs).filter((word) => !word.endsWith("*"))) {
      if (/=(relative|\/|\/\/etc)$/.test(word)) continue;
      const taken = words.filter((other) => allowsAll(policy(word), [other]));
      expect(taken).toEqual([word]);
    }
  });
});

describe("folders of the node", () => {
  const at = (path: string) => ({ spec: { volumes: [{ name: "v", hostPath: { path } }] } });

  test.each([
    ["/data", "/data", true],
    ["/data", "/data/", true],
    ["/data", "/data/a/b", true],
    ["/data", "/data/a..b", true],
    ["/data", "/database", false],
    ["/data", "/", false],
    ["/data", "/data/..", false],
    ["/data", "/data/../etc", false],
    ["/data", "data", false],
    ["/data", "/other/data", false],
    ["/", "/etc/kubernetes", true],
    ["/", "/data/../etc", false],
  ])("%s allows %s: %s", (folder, path, expected) => {
    expect(forbiddenIn(policy(`hostPaths=${folder}`), at(path), FIELD).length === 0).toBe(expected);
  });
});

describe("a message", () => {
  test("names the field, the allowed values, and both fixes", () => {
    const template = templateOf({ container: { securityContext: { capabilities: { add: ["NET_RAW"] } } } });
    expect(forbiddenIn(policy("capabilities=NET_ADMIN"), template, FIELD)).toEqual([
      "spec.sessions.template.spec.containers[0].securityContext.capabilities.add[0]: NET_RAW is not allowed (podPolicy.capabilities=[NET_ADMIN]); remove it, or add it to the chart's podPolicy.capabilities (--allowed-in-templates capabilities=NET_RAW)",
    ]);
  });

  test("reports needs that are all allowed but too long for a Pod's annotation", () => {
    const path = (index: number) => `/data/${"x".repeat(90)}${index}`;
    const volumes = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ hostPath: { path: path(index) } }));
    const asked = (count: number) =>
      forbiddenIn(policy("hostPaths=/data"), templateOf({ pod: { volumes: volumes(count) } }), FIELD);
    expect(asked(30)).toEqual([]);
    expect(asked(60)).toEqual([
      expect.stringMatching(/take \d+ characters, more than 4000; use fewer or shorter ones$/),
    ]);
  });

  test("stays short for any number of needs", () => {
    const add = Array.from({ length: 500 }, (_, index) => `${"X".repeat(500)}${index}`);
    const why = forbiddenIn({}, templateOf({ container: { securityContext: { capabilities: { add } } } }), FIELD);
    expect(why.at(-1)).toBe("spec.sessions.template: 480 more fields are not allowed");
    expect(why.join(" ").length).toBeLessThan(MAX_CONDITION_MESSAGE / 2);
  });
});

describe("words of the flag", () => {
  test.each([
    ["privileged", { key: "privileged", item: "*" }],
    ["capabilities=NET_ADMIN", { key: "capabilities", item: "NET_ADMIN" }],
    [
      "tolerations=node-role.kubernetes.io/control-plane",
      { key: "tolerations", item: "node-role.kubernetes.io/control-plane" },
    ],
    ["hostPaths=/", { key: "hostPaths", item: "/" }],
  ])("%s is accepted", (word, allowance) => {
    expect(parseAllowance(word)).toEqual(allowance);
  });

  test.each([
    ["sudo", /is unknown; write one of privileged, .*capabilities=<name>.*hostPaths=<\/path>/],
    ["privileged=true", /write privileged$/],
    ["capabilities", /write capabilities=<name>/],
    ["capabilities=", /write capabilities=<name>/],
    ["capabilities=CAP_NET_ADMIN", /no CAP_ prefix/],
    ["capabilities=net_admin", /have capital letters/],
    ["hostPaths=data", /write hostPaths=<\/path>/],
    ["hostPaths=/data/", /write hostPaths=<\/path>/],
    ["hostPaths=/data/../etc", /write hostPaths=<\/path>/],
    ["toString", /is unknown/],
  ])("%s is refused, with the fix", (word, message) => {
    expect(() => parseAllowance(word)).toThrow(message);
  });
});

test("refuses a word of another version", () => {
  expect(allowsAll(policy("privileged", "capabilities=*"), ["teleport"])).toBe(false);
  expect(allowsAll(policy("privileged"), ["capabilities=NET_ADMIN"])).toBe(false);
});

test("finds the needs of any template", () => {
  const names = [
    "spec",
    "containers",
    "initContainers",
    "securityContext",
    "volumes",
    "hostPath",
    "path",
    "tolerations",
    "key",
  ];
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 6 },
      fc.constantFrom<unknown>(null, true, false, 0, "", "Unconfined", 1.5),
      fc.array(tie("tree"), { maxLength: 3 }),
      fc.dictionary(fc.oneof(fc.constantFrom(...names), fc.string()), tie("tree"), { maxKeys: 4 }),
    ),
  }));
  fc.assert(
    fc.property(tree, (spec) => {
      expect(Array.isArray(needsOf({ spec }))).toBe(true);
      forbiddenIn({}, { spec }, FIELD);
    }),
  );
});
