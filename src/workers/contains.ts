/**
 * Whether `actual` has everything that `wanted` says; more is fine: the API server adds defaults, and admission what it
 * likes. Of lists, entries with a name are found by it, others by their place.
 */
export function contains(actual: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) {
    return Array.isArray(actual) && wanted.every((each, index) => contains(counterpart(actual, each, index), each));
  }
  if (typeof wanted !== "object" || wanted === null) return actual === wanted;
  if (typeof actual !== "object" || actual === null) return false;
  return Object.entries(wanted).every(([key, value]) => contains(Reflect.get(actual, key), value));
}

function counterpart(list: readonly unknown[], wanted: unknown, index: number): unknown {
  const name = nameOf(wanted);
  return name === undefined ? list[index] : list.find((each) => nameOf(each) === name);
}

function nameOf(entry: unknown): unknown {
  return typeof entry === "object" && entry !== null ? Reflect.get(entry, "name") : undefined;
}
