import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { FATE_ANNOTATION, FATE_KINDS, parseFate } from "../../../testbed/node/fate.ts";
import { KUBELET_TIMES } from "../../../testbed/node/latency.ts";

const read = (name: string) => readFileSync(join(import.meta.dirname, "../../../docs/simulated-node", name), "utf8");
const fates = read("fates.md");

test("the page documents exactly the kinds of fates", () => {
  const rows = [...fates.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, kind]) => kind);
  expect(rows.sort()).toEqual([...FATE_KINDS].sort());
  expect(fates).toContain(`\`${FATE_ANNOTATION}\``);
});

test("every fate on the page is valid", () => {
  const samples = [...fates.matchAll(/```json\n(.*?)\n```/gs)].map(([, text = ""]) => text);
  expect(samples.length).toBeGreaterThan(2);
  for (const text of samples) expect(() => parseFate(JSON.parse(text))).not.toThrow();
});

test("the durations on the page match the code", () => {
  const rows = [...read("kubelet.md").matchAll(/^\| [^|]+ \| (\d+) \| (\d+) \| (\d+) \|$/gm)].map((match) =>
    match.slice(1, 4).map(Number),
  );
  const { deadlineSeen: _tick, ...shown } = KUBELET_TIMES;
  expect(rows).toEqual(
    [
      shown.sandbox,
      shown.added,
      shown.start,
      shown.exitSeen,
      shown.terminalPhase,
      shown.finalize,
      shown.look,
      shown.volumes,
      shown.resync,
    ].map(({ min, mid, max }) => [min, mid, max]),
  );
});

test.each([
  ["an unknown kind", { kind: "explode" }],
  ["an unknown field", { kind: "exit", after: 1 }],
  ["a negative time", { kind: "exit", afterMs: -1 }],
  ["an invalid exit code", { kind: "exit", code: 256 }],
])("%s is rejected with its name", (_what, input) => {
  expect(() => parseFate(input)).toThrow(/invalid fate/);
});
