const SUFFIXES: Readonly<Record<string, number>> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/** Parses a Kubernetes quantity (`100m`, `24Mi`, `1e3`). Throws a RangeError if it's invalid. */
export function parseQuantity(text: string): number {
  const match = /^([+-]?[\d.]+(?:[eE][+-]?\d+)?)(n|u|m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$/.exec(text);
  if (match?.[1] === undefined) throw new RangeError(`not a quantity: ${text}`);
  return Number(match[1]) * (SUFFIXES[match[2] ?? ""] ?? 1);
}

/** Sums quantities of one resource. A single quantity is returned unchanged, otherwise in milli-CPUs or bytes. */
export function sumQuantities(resource: string, quantities: readonly string[]): string {
  const [first] = quantities;
  if (quantities.length === 1 && first !== undefined) return first;
  const sum = quantities.reduce((total, quantity) => total + parseQuantity(quantity), 0);
  return resource === "cpu" ? `${Math.round(sum * 1_000)}m` : String(Math.round(sum));
}
