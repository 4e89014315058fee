/** The seed of CI, whose runs try the same as one another. */
export const SEED_IN_CI = 1;

/**
 * For random histories of whole worlds: the same ones in every run of CI, so that a red run is red for a change and not for
 * its luck, as with `npm run test:faults`. Elsewhere fast-check draws a seed, and says which when it fails.
 */
export const CI_SEED: { readonly seed?: number } = process.env["CI"] === "true" ? { seed: SEED_IN_CI } : {};
