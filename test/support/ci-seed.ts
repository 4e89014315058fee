/** The seed in CI, so that all runs try the same. */
export const SEED_IN_CI = 1;

/**
 * The options for random histories of whole worlds. Every run in CI uses the same ones, so that a failure comes from a
 * change, not from chance (as in `npm run test:faults`). Elsewhere fast-check draws a seed, and prints it on failure.
 */
export const CI_SEED: { readonly seed?: number } = process.env["CI"] === "true" ? { seed: SEED_IN_CI } : {};
