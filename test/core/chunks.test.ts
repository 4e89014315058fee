import fc from "fast-check";
import { expect, test } from "vitest";
import { Chunks } from "../../src/core/chunks.ts";

test("returns pieces of any size in the order in which they were pushed", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40_000, size: "max" }), { maxLength: 20 }), (pieces) => {
      const chunks = new Chunks();
      for (const piece of pieces) chunks.push(piece);
      const all = Buffer.concat(pieces);
      expect(chunks.bytes).toBe(all.length);
      expect(chunks.concat().equals(all)).toBe(true);
      expect(chunks.take().equals(all)).toBe(true);
      expect(chunks.bytes).toBe(0);
      expect(chunks.take()).toHaveLength(0);
    }),
    { numRuns: 50 },
  );
});

test("does not change a taken buffer on later pushes", () => {
  const chunks = new Chunks();
  chunks.push(Buffer.from("first"));
  const first = chunks.take();
  chunks.push(Buffer.from("second"));
  expect(first.toString()).toBe("first");
  expect(chunks.take().toString()).toBe("second");
});

test("uses memory in proportion to the size of a body that arrives byte by byte", () => {
  const chunks = new Chunks();
  const piece = Buffer.alloc(65_536);
  const bytes = 4_000_000;
  const before = process.memoryUsage();
  for (let i = 0; i < bytes; i += 1) chunks.push(piece.subarray(i % 65_536, (i % 65_536) + 1));
  const after = process.memoryUsage();
  expect(chunks.bytes).toBe(bytes);
  // Garbage collection may lower the number. A list of pieces would take some 400 MB here.
  expect(after.heapUsed - before.heapUsed).toBeLessThan(100_000_000);
});
