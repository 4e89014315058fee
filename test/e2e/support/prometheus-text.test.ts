import { Counter, Histogram, Registry } from "prom-client";
import { expect, test } from "vitest";
import { parseMetrics, sumOf } from "./prometheus-text.ts";

test("parses the output of prom-client: values, labels with quotes, families of series", async () => {
  const registers = [new Registry()];
  const [registry] = registers;
  const ended = new Counter({ name: "ended_total", help: "h", labelNames: ["reason", "name"], registers });
  ended.inc({ reason: "Killed", name: 'a "b"\\\n' }, 2);
  ended.inc({ reason: "Killed", name: "c" });
  ended.inc({ reason: "Completed", name: "c" }, 4);
  new Histogram({ name: "wait_seconds", help: "h", buckets: [1], registers }).observe(3);
  const samples = parseMetrics((await registry?.metrics()) ?? "");
  expect(sumOf(samples, "ended_total", { reason: "Killed" })).toBe(3);
  expect(sumOf(samples, "ended_total", { name: 'a "b"\\\n' })).toBe(2);
  expect(sumOf(samples, "ended_total")).toBe(7);
  expect(sumOf(samples, "wait_seconds_sum")).toBe(3);
  expect(new Set(samples.map(({ metric }) => metric))).toEqual(new Set(["ended_total", "wait_seconds"]));
});

test("distinguishes a missing series from one of value 0", () => {
  const samples = parseMetrics("# TYPE a gauge\na 0\n");
  expect(sumOf(samples, "a")).toBe(0);
  expect(sumOf(samples, "b")).toBeUndefined();
  expect(sumOf(samples, "a", { reason: "x" })).toBeUndefined();
});

test("rejects a page that contains no metrics", () => {
  expect(() => parseMetrics("<html>\n")).toThrow("<html>");
});
