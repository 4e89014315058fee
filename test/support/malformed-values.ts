/** Malformed values for property tests, and how to put them anywhere into a JSON value. */
import fc from "fast-check";

/** A path in a JSON value. */
export type Path = readonly string[];

/** Every path in a JSON value, including its root. */
export function pathsOf(value: unknown): Path[] {
  const parts = typeof value === "object" && value !== null ? Object.entries(value) : [];
  return [[], ...parts.flatMap(([key, part]) => pathsOf(part).map((path) => [key, ...path]))];
}

/** The value with the part at a path replaced; undefined removes the field. */
export function replaced(value: unknown, [key, ...rest]: Path, by: unknown): unknown {
  if (key === undefined) return by ?? null;
  const part = (value as Record<string, unknown>)[key];
  const next = rest.length === 0 ? by : replaced(part, rest, by);
  if (Array.isArray(value)) return value.map((one, i) => (String(i) === key ? (next ?? null) : one));
  return { ...(value as object), [key]: next };
}

/** Values that are invalid in most places: of every type, and at the limits of JSON, dates and counts. */
export const ODD: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    ...[undefined, null, true, false, 0, -1, 0.5, 2 ** 31, 2 ** 53, 1e308, -1e308],
    ...["", " ", "\u0000", "a\nb", '"', "../..", "%2f", "\ud800", "ﷺ".repeat(20), "x".repeat(5_000)],
    ...["NaN", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "-1", "1e9999", "5m"],
    ...[[], {}, [null], [[]], { a: { a: { a: {} } } }],
  ),
  fc.jsonValue(),
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.double(),
);

/** One of these paths, and a malformed value for it. */
export function mutation(paths: readonly Path[]): fc.Arbitrary<{ readonly path: Path; readonly by: unknown }> {
  return fc.record({ path: fc.constantFrom(...paths), by: ODD });
}
