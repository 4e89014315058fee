/** The cost at one size. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/**
 * Returns the exponent with which a cost grows: the slope of the best-fitting line when both axes are logarithmic. 1 is
 * linear, 2 is quadratic. Ignores points with values of zero or less. Returns NaN for fewer than two points.
 */
export function growthExponent(points: readonly Point[]): number {
  const logs = points.filter(({ x, y }) => x > 0 && y > 0).map(({ x, y }) => ({ x: Math.log(x), y: Math.log(y) }));
  const meanX = mean(logs.map(({ x }) => x));
  const meanY = mean(logs.map(({ y }) => y));
  const covariance = sum(logs.map(({ x, y }) => (x - meanX) * (y - meanY)));
  const variance = sum(logs.map(({ x }) => (x - meanX) ** 2));
  return covariance / variance;
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
const mean = (values: readonly number[]) => sum(values) / values.length;
